<?php

// Signed calls to Latchkey with curl, and the verification of its webhooks. It needs PHP 8.1 and its extension curl.

declare(strict_types=1);

namespace Latchkey;

/** The response to the last attempt of a call. The names of headers are in lower case. */
final class Response
{
    /** @param array<string, string> $headers */
    public function __construct(
        public readonly int $status,
        public readonly array $headers,
        public readonly string $body,
    ) {
    }
}

/** There was no response, or a webhook was not sent by Latchkey or is too old. */
final class Failure extends \RuntimeException
{
}

/** A signing key, with the difference between the clock of this machine and that of the server. */
final class Client
{
    private const RETRIES = 3;
    private const PATIENCE_S = 60;
    private const CLOCK_TOLERANCE_S = 5;
    private const SAFE_METHODS = ['GET', 'HEAD', 'OPTIONS', 'TRACE'];

    private int $aheadS = 0; // how far the server's clock is ahead of ours
    private readonly \Closure $now;

    /**
     * @param string $form "query" puts the signature into the query and the header `secret`, "message" into headers (RFC 9421)
     * @param bool $idempotent false for routes that do not accept an `Idempotency-Key`
     * @param ?callable(): int $now returns the Unix time in seconds
     */
    public function __construct(
        private readonly string $accessKey,
        #[\SensitiveParameter] private readonly string $secret,
        private readonly string $form = 'query',
        private readonly bool $idempotent = true,
        ?callable $now = null,
    ) {
        if (!in_array($form, ['query', 'message'], true)) {
            throw new \ValueError('The form must be "query" or "message".');
        }
        $this->now = ($now ?? time(...))(...);
    }

    /**
     * Send a call. A 401 is repeated once if the server's clock differs from ours. 429 and 503 are repeated after
     * `Retry-After` seconds, three times and for a minute at most. An unsafe call has an `Idempotency-Key`, the same in
     * each attempt: the server carries it out once. A body without a content type is sent as application/json.
     *
     * @param string $method in upper case
     * @param string $url absolute and percent-encoded
     * @param array<string, string> $headers
     */
    public function request(string $method, string $url, string $body = '', array $headers = []): Response
    {
        $headers = array_change_key_case($headers);
        if ($body !== '') {
            $headers += ['content-type' => 'application/json'];
        }
        $isSafe = in_array($method, self::SAFE_METHODS, true);
        if ($this->idempotent && !$isSafe) {
            $headers += ['idempotency-key' => bin2hex(random_bytes(16))];
        }
        // Without an Idempotency-Key, a change that got a 503 may have been made.
        $repeated = $isSafe || isset($headers['idempotency-key']) ? [429, 503] : [429];

        $corrected = false;
        $retries = self::RETRIES;
        $patienceS = self::PATIENCE_S;
        while (true) {
            [$signed, $added] = $this->sign($method, $url, $headers, $body);
            $response = $this->send($method, $signed, $headers + $added, $body);
            $after = $response->headers['retry-after'] ?? '';
            if ($response->status === 401 && !$corrected && $this->correctClock($response->headers['date'] ?? '')) {
                $corrected = true;
            } elseif (
                in_array($response->status, $repeated, true) && $retries > 0
                && preg_match('/^[0-9]{1,6}$/D', $after) && (int) $after <= $patienceS
            ) {
                $retries -= 1;
                $patienceS -= (int) $after;
                sleep((int) $after);
            } else {
                return $response;
            }
        }
    }

    /**
     * Return the URL and the additional headers of a call; send it once, and exactly like this.
     *
     * @param array<string, string> $headers with names in lower case
     * @return array{string, array<string, string>}
     */
    public function sign(
        string $method, string $url, array $headers, string $body, ?int $now = null, ?string $nonce = null,
    ): array {
        $created = $now ?? ($this->now)() + $this->aheadS;
        $nonce ??= bin2hex(random_bytes(16));
        $parts = parse_url($url);
        $query = $parts['query'] ?? '';
        $path = $parts['path'] ?? '/';
        $host = $parts['host'] . (isset($parts['port']) ? ":{$parts['port']}" : '');
        $base = "{$parts['scheme']}://{$host}{$path}";
        if ($this->form === 'query') {
            $signed = [
                'key' => $this->accessKey, 'timestamp' => $created, 'nonce' => $nonce, 'method' => $method, 'path' => $path,
            ];
            if ($body !== '' || !in_array($method, self::SAFE_METHODS, true)) {
                $signed['content_sha256'] = hash('sha256', $body);
            }
            $own = http_build_query($signed, '', '&', PHP_QUERY_RFC3986);
            $whole = $query === '' ? $own : "{$own}&{$query}";
            return ["{$base}?{$whole}", ['secret' => $this->mac($whole)]];
        }
        $added = [];
        $usual = ['http' => ':80', 'https' => ':443'][$parts['scheme']] ?? '';
        $components = [
            '@method' => $method,
            '@authority' => strtolower(str_ends_with($host, $usual) ? substr($host, 0, -strlen($usual)) : $host),
            '@path' => $path,
            '@query' => "?{$query}",
        ];
        if (isset($headers['content-type'])) {
            $components['content-type'] = $headers['content-type'];
        }
        if ($body !== '') {
            $added['content-digest'] = 'sha-256=:' . base64_encode(hash('sha256', $body, true)) . ':';
            $components['content-digest'] = $added['content-digest'];
        }
        if (isset($headers['idempotency-key'])) {
            $components['idempotency-key'] = $headers['idempotency-key'];
        }
        $covered = implode(' ', array_map(fn ($name) => "\"{$name}\"", array_keys($components)));
        $parameters = "({$covered});created={$created};keyid=\"{$this->accessKey}\";nonce=\"{$nonce}\";tag=\"latchkey-v1\"";
        $text = '';
        foreach ($components as $name => $value) {
            $text .= "\"{$name}\": {$value}\n";
        }
        $added['signature-input'] = "sig1={$parameters}";
        $added['signature'] = 'sig1=:' . $this->mac("{$text}\"@signature-params\": {$parameters}") . ':';
        return [$base . ($query === '' ? '' : "?{$query}"), $added];
    }

    /** Return the HMAC-SHA256 of a text in base64. */
    public function mac(string $text): string
    {
        return base64_encode(hash_hmac('sha256', $text, $this->secret, true));
    }

    /** Use the time of the server, and return whether the clocks were different. Over http anybody on the way can change it. */
    private function correctClock(string $date): bool
    {
        $server = strtotime($date);
        $aheadS = (int) $server - ($this->now)();
        if ($server === false || abs($aheadS - $this->aheadS) <= self::CLOCK_TOLERANCE_S) {
            return false;
        }
        $this->aheadS = $aheadS;
        return true;
    }

    /** @param array<string, string> $headers */
    private function send(string $method, string $url, array $headers, string $body): Response
    {
        $received = [];
        $handle = curl_init($url);
        curl_setopt_array($handle, [
            CURLOPT_CUSTOMREQUEST => $method,
            CURLOPT_NOBODY => $method === 'HEAD',
            CURLOPT_HTTPHEADER => array_map(fn ($name) => "{$name}: {$headers[$name]}", array_keys($headers)),
            CURLOPT_PATH_AS_IS => true,
            CURLOPT_RETURNTRANSFER => true,
            CURLOPT_TIMEOUT => 30,
            CURLOPT_HEADERFUNCTION => function ($handle, string $line) use (&$received): int {
                [$name, $value] = explode(':', $line, 2) + ['', ''];
                $received[strtolower($name)] = trim($value);
                return strlen($line);
            },
        ] + ($body === '' ? [] : [CURLOPT_POSTFIELDS => $body]));
        $content = curl_exec($handle);
        if ($content === false) {
            throw new Failure('There was no response: ' . curl_error($handle));
        }
        return new Response(curl_getinfo($handle, CURLINFO_RESPONSE_CODE), $received, $content);
    }
}

/**
 * Return the event of a webhook, or throw a Failure; answer it with 400.
 *
 * @param string $secret of the webhook, `whsec_…`
 * @param array<string, string> $headers in any letter case
 * @param string $body as it arrived: `file_get_contents('php://input')`
 * @return array<string, mixed>
 */
function verifyWebhook(#[\SensitiveParameter] string $secret, array $headers, string $body, ?int $now = null): array
{
    $headers = array_change_key_case($headers);
    $timestamp = $headers['webhook-timestamp'] ?? '';
    if (!preg_match('/^[0-9]{1,12}$/D', $timestamp) || abs(($now ?? time()) - (int) $timestamp) > 300) {
        throw new Failure('The timestamp is missing, or more than five minutes away.');
    }
    $key = base64_decode(preg_replace('/^whsec_/', '', $secret), true);
    $text = ($headers['webhook-id'] ?? '') . ".{$timestamp}.{$body}";
    $expected = 'v1,' . base64_encode(hash_hmac('sha256', $text, $key, true));
    foreach (explode(' ', $headers['webhook-signature'] ?? '') as $signature) {
        if (hash_equals($expected, $signature)) {
            return json_decode($body, true, flags: JSON_THROW_ON_ERROR);
        }
    }
    throw new Failure('No signature is valid.');
}
