<?php

// Drive the client in PHP; drive.py lists the commands.

declare(strict_types=1);

require __DIR__ . '/../../../examples/clients/php/Latchkey.php';

use Latchkey\Client;

[, $command] = $argv;
$given = array_slice($argv, 2);
$client = fn (string $form = 'query', ?callable $now = null) => new Client(getenv('KEY'), getenv('SECRET'), $form, now: $now);
switch ($command) {
    case 'mac':
        foreach (array_slice($given, 1) as $text) {
            echo (new Client('', $given[0]))->mac($text), "\n";
        }
        break;
    case 'sign':
        [$form, $method, $url, $body, $type, $idempotencyKey, $now, $nonce] = $given;
        $headers = array_filter(['content-type' => $type, 'idempotency-key' => $idempotencyKey]);
        [$signed, $added] = $client($form)->sign($method, $url, $headers, $body, (int) $now, $nonce);
        echo $signed;
        foreach ($added as $name => $value) {
            echo "\n{$name}: {$value}";
        }
        break;
    case 'call':
        [$form, $method, $url, $body, $offset] = $given;
        $response = $client($form, fn () => time() + (int) $offset)->request($method, $url, $body);
        echo $response->status, "\n", $response->body;
        break;
    case 'verify':
        [$secret, $id, $timestamp, $signature] = $given;
        $headers = ['Webhook-Id' => $id, 'Webhook-Timestamp' => $timestamp, 'Webhook-Signature' => $signature];
        try {
            $event = Latchkey\verifyWebhook($secret, $headers, file_get_contents('php://stdin'));
            echo 'valid ', $event['type'];
        } catch (Latchkey\Failure) {
            echo 'invalid';
        }
}
