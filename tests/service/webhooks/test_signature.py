"""The signature is that of Standard Webhooks, by its own library and by an example of its specification."""

import time

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from latchkey.service.webhooks.signature import WebhookSecret, headers_of, new_secret

PAYLOAD = '{"type":"key.created","data":{"name":"Ä"}}'.encode()


def test_the_library_accepts_it() -> None:
    secret, old = new_secret(), new_secret()
    sent = dict(headers_of("evt_1", PAYLOAD, [secret, old], int(time.time())))

    for one in (secret, old):
        assert Webhook(one).verify(PAYLOAD, sent)["type"] == "key.created"
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify(PAYLOAD, sent)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(PAYLOAD + b" ", sent)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(PAYLOAD, sent | {"webhook-id": "evt_2"})


def test_an_old_attempt_is_refused_by_the_library() -> None:
    secret = new_secret()
    sent = dict(headers_of("evt_1", PAYLOAD, [secret], int(time.time()) - 3600))

    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(PAYLOAD, sent)


def test_it_is_the_one_of_the_libraries_own_example() -> None:
    secret = WebhookSecret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    sent = dict(headers_of("msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}', [secret], 1614265330))

    assert sent["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_secrets_have_32_random_bytes() -> None:
    assert len({new_secret() for _ in range(100)}) == 100
    assert {len(new_secret()) for _ in range(10)} == {len("whsec_") + 44}
