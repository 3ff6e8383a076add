"""The errors of Latchkey: each code with its status, its title and its explanation.

    4xx  the caller can correct the request
    5xx  the caller cannot; 503, like 429, has a Retry-After

`GET /problems/<code>` returns the explanation of a code.
"""

from collections.abc import Mapping

import msgspec


class ProblemKind(msgspec.Struct, frozen=True):
    """One code: its status, its title, and the paragraph that explains it to a client."""

    status: int
    title: str
    explanation: str


KINDS: Mapping[str, ProblemKind] = {
    "malformed_request": ProblemKind(
        400,
        "The request is not valid HTTP",
        "The service could not parse the request, or its body framing, as HTTP/1.1. The connection was "
        "closed. A proxy in between may have changed the request, or the client speaks another protocol.",
    ),
    "malformed_json": ProblemKind(
        400,
        "The body is not JSON",
        "The body is not valid JSON: it is truncated, nested too deeply, or not UTF-8. Nothing was changed. "
        "Correct the body and send it again.",
    ),
    "invalid_parameter": ProblemKind(
        400,
        "A query parameter is invalid",
        "A query parameter is unknown, repeated, or has a value in the wrong format; the detail names it. "
        "Unknown parameters are refused, because a misspelled filter would return too much.",
    ),
    "invalid_cursor": ProblemKind(
        400,
        "The cursor is invalid",
        "A cursor is an opaque text that continues one list with the same filters. Use the next_cursor of the "
        "previous page unchanged and with the same filters, or start without a cursor.",
    ),
    "invalid_idempotency_key": ProblemKind(
        400,
        "The Idempotency-Key is invalid",
        "The header is repeated, is neither a quoted string nor a plain token, has more than 255 characters, "
        "or was sent to an operation that does not accept it; the detail says which. Nothing was changed.",
    ),
    "two_credentials": ProblemKind(
        400,
        "The request has more than one credential",
        "The request contains credentials of more than one kind, for example an Authorization header and a "
        "signed query. The service does not guess which one is meant. Send exactly one.",
    ),
    "gate_request_invalid": ProblemKind(
        400,
        "The proxy does not describe the request",
        "The gate decides about a request that a proxy received, and needs its method, URI, host, scheme and client "
        "address in headers. One is missing, repeated or wrong; the detail names it. This is a fault in the configuration "
        "of the proxy.",
    ),
    "ambiguous_request": ProblemKind(
        400,
        "The request can be read in two ways",
        "Servers differ in their reading of the method, the host, the path or a header of the request, so the gate could "
        "permit something else than the service does; the detail says what is ambiguous. Send a path without empty "
        "segments, dot segments, backslashes, semicolons and encoded slashes, and none of the headers of the gate.",
    ),
    "unauthenticated": ProblemKind(
        401,
        "Not authenticated",
        "The request has no credential, or the credential is not valid. If its format is wrong, the detail names the "
        "part and the expected format. Otherwise the key is unknown, the timestamp is outside the clock window, or the "
        "signature belongs to another request or secret. These cases have the same response on purpose. Check the key, "
        "the clock and the text that was signed, or call POST /v1/me/signatures/explain.",
    ),
    "key_revoked": ProblemKind(
        401,
        "The key was revoked",
        "The credential is valid, but the key was revoked and cannot be used again. Ask the operator for a "
        "new key.",
    ),
    "key_expired": ProblemKind(
        401,
        "The key has expired",
        "The credential is valid, but the expires_at of the key has passed. An operator can extend it or "
        "create a new key.",
    ),
    "owner_inactive": ProblemKind(
        401,
        "The owner of the key is not active",
        "The credential is valid, but the user that owns the key is blocked or deleted.",
    ),
    "replayed": ProblemKind(
        401,
        "The signed call was sent before",
        "A signature is accepted once. The nonce was used before or, if there is no nonce, the signature was. "
        "Sign every call again, including the retry of a call that failed.",
    ),
    "digest_mismatch": ProblemKind(
        401,
        "The body does not match the signature",
        "The body does not have the digest that the signature covers. Sign the exact bytes that are sent. A "
        "proxy, or a second serialization, may have changed them.",
    ),
    "credits_used_up": ProblemKind(
        402,
        "The credits of the key are used up",
        "The key has fewer credits left than the call costs. The call was not charged. The detail names both numbers. "
        "If the response has Retry-After, the credits are refilled after that many seconds and the call then fits. "
        "Otherwise the operator must add credits.",
    ),
    "gate_caller_refused": ProblemKind(
        403,
        "Only a trusted proxy may ask the gate",
        "The gate relies on the description of a request by a proxy, so it serves only proxies that the operator trusts "
        "(LATCHKEY_TRUSTED_PROXIES). Call the service behind the proxy instead.",
    ),
    "no_gate_rule": ProblemKind(
        403,
        "No rule permits the request",
        "The operator's rules for the gate name the permitted hosts, methods and paths. No rule fits this request, so it "
        "is refused with any credential.",
    ),
    "network_not_allowed": ProblemKind(
        403,
        "The key cannot be used from this address",
        "The credential is valid, but the client address is not in the allowed_networks of the key. Call from "
        "an allowed network, or ask the operator to add yours. A call from an unknown address is refused as "
        "well.",
    ),
    "scope_missing": ProblemKind(
        403,
        "The key lacks a scope",
        "The key is valid, but it does not have the scope that the endpoint requires; the detail names the "
        "scope.",
    ),
    "scope_not_held": ProblemKind(
        403,
        "A key cannot grant a scope that it does not have",
        "To create, change or rotate a key, the calling key needs every scope that the key has or gets; the "
        "detail names the missing scopes.",
    ),
    "key_wider": ProblemKind(
        403,
        "The key has wider permissions than the calling key",
        "Under /v1/me/keys a key can change and rotate only keys that are not wider than itself: they must "
        "not expire later, have other networks, or have higher limits. The detail names what is wider. Use "
        "another key, or ask the operator.",
    ),
    "other_environment": ProblemKind(
        403,
        "The key is of another environment",
        "A key creates, changes and rotates only keys of its own environment, such as live or test. Nothing was changed. "
        "Use a key of that environment, or leave `environment` out.",
    ),
    "coverage_required": ProblemKind(
        403,
        "The signature covers too little",
        "A signed call with an unsafe method must sign its method, its path and, with a body, its "
        "content_sha256. Otherwise the same signature would be valid for another call. The detail names what "
        "is missing.",
    ),
    "cost_above_limit": ProblemKind(
        403,
        "The call costs more than a limit allows",
        "The call costs more units than a limit or a quota of the key or its owner ever allows, so waiting "
        "does not help. The detail names the limit. An operator can raise it.",
    ),
    "not_found": ProblemKind(
        404,
        "Not found",
        "The path or the row does not exist. An id that is not a positive 64-bit integer identifies no row.",
    ),
    "method_not_allowed": ProblemKind(
        405,
        "Method not allowed",
        "The path exists, but it does not support this method; the Allow header lists the supported methods.",
    ),
    "body_timeout": ProblemKind(
        408,
        "The body did not arrive in time",
        "The body must arrive completely within a number of seconds that the operator sets. Nothing was "
        "changed, and the connection was closed. Sign the request again and send it on a faster connection.",
    ),
    "headers_timeout": ProblemKind(
        408,
        "The headers did not arrive in time",
        "The headers of the request were not complete in time, and the connection was closed. Nothing was "
        "changed. Send the request again without pauses.",
    ),
    "conflict": ProblemKind(
        409,
        "The change conflicts with stored data",
        "The database refused the change because it would violate a constraint, for example because a value "
        "that must be unique exists already. Read the row again before you retry.",
    ),
    "changed_meanwhile": ProblemKind(
        409,
        "The row was changed by another call",
        "Another call changed or deleted the row after this call had read it. This call changed nothing. Read "
        "the row again before you retry.",
    ),
    "email_taken": ProblemKind(
        409,
        "The email is taken",
        "Another user has this email. The comparison ignores upper and lower case. The email of a deleted user "
        "stays taken.",
    ),
    "external_id_taken": ProblemKind(
        409,
        "The external id is taken",
        "Another user, or another key, has this external_id. Upper and lower case are different. The external_id of a "
        "deleted user or a revoked key stays taken until it is changed.",
    ),
    "too_many_keys": ProblemKind(
        409,
        "The owner has too many keys",
        "The number of keys of an owner is limited, and revoked keys count. Rotate a key instead of creating "
        "a new one, or ask the operator to raise LATCHKEY_KEYS_PER_OWNER.",
    ),
    "too_many_webhooks": ProblemKind(
        409,
        "There are too many webhooks",
        "A service has at most 100 webhooks, because each is served at the same time as the others. Delete one that is "
        "not used any more.",
    ),
    "key_without_credits": ProblemKind(
        409,
        "The key has no credits to change",
        "Calls with the key spend no credits, so there is no number to change. Give the key credits first: PATCH it with "
        "`credits`.",
    ),
    "too_few_credits": ProblemKind(
        409,
        "The key has fewer credits",
        "The change would subtract more credits than the key has. The detail names the credits that are left. Nothing "
        "was changed.",
    ),
    "scope_taken": ProblemKind(
        409,
        "The scope exists already",
        "The scope was registered before, or a route of the service declares it. Keys can have it without another "
        "registration.",
    ),
    "scope_in_use": ProblemKind(
        409,
        "The scope is in use",
        "Active keys or roles have the scope, or rules of the gate need it, so it cannot be removed; the detail names them. "
        "Change them first, or revoke the keys.",
    ),
    "role_taken": ProblemKind(
        409,
        "The role exists already",
        "A role has this name. Nothing was changed. Change that role, or choose another name.",
    ),
    "role_in_use": ProblemKind(
        409,
        "A key has the role",
        "The role cannot be removed while an active key has it. The detail names the keys. Remove the role from these "
        "keys first, or revoke them.",
    ),
    "user_deleted": ProblemKind(
        409,
        "The user is deleted",
        "A deleted user can be read but not changed.",
    ),
    "key_not_active": ProblemKind(
        409,
        "The key is revoked",
        "A revoked key can be read but not changed.",
    ),
    "gate_rule_taken": ProblemKind(
        409,
        "The rule exists already",
        "A stored rule of the gate has this name. Nothing was changed. Replace that rule, or choose another name.",
    ),
    "version_changed": ProblemKind(
        409,
        "The version is another one",
        "The call names the version that it replaces, but the secret of the key, or the rules of the gate, have another "
        "version: they were replaced before. Nothing was changed. Read the key or the rules before you try again.",
    ),
    "user_owns_caller": ProblemKind(
        409,
        "The user owns the key of this call",
        "If this user is deleted or blocked, the key of this call and all other keys of the user stop working. "
        "Nothing was changed. Send the call again with `?force=true` to do it anyway. After that, only another "
        "operator key or the command line can unblock the user. A deleted user cannot be restored.",
    ),
    "user_not_active": ProblemKind(
        409,
        "The user is not active",
        "Keys are created for active users only; this user is blocked or deleted.",
    ),
    "idempotency_in_progress": ProblemKind(
        409,
        "A call with this Idempotency-Key is in progress",
        "Another call with the same key, method and path has not finished yet. Send the call again after "
        "Retry-After seconds with the same Idempotency-Key. It then gets the response to the other call, "
        "or runs if that call failed.",
    ),
    "body_too_large": ProblemKind(
        413,
        "The body is too large",
        "The body is larger than the limit that the operator has set.",
    ),
    "uri_too_long": ProblemKind(
        414,
        "The URL is too long",
        "The path and the query are longer than the service accepts. The connection was closed.",
    ),
    "unsupported_media_type": ProblemKind(
        415,
        "The body is not application/json",
        "Bodies are JSON in UTF-8 with the header Content-Type: application/json.",
    ),
    "invalid_body": ProblemKind(
        422,
        "The body has the wrong shape",
        "The JSON is valid, but a field is missing, unknown, of the wrong type, or out of range. `errors` "
        "contains a JSON pointer (RFC 6901) to the field. Nothing was changed.",
    ),
    "invalid_value": ProblemKind(
        422,
        "A value cannot be stored",
        "A value is too long, out of range, or contains characters that the database cannot store. The "
        "value was derived from the request. If it were a field of the body, the code would be invalid_body. Nothing "
        "was changed.",
    ),
    "idempotency_mismatch": ProblemKind(
        422,
        "The Idempotency-Key was used for another call",
        "A call with the same key, method and path was answered before, with another query or body. Nothing "
        "was changed. Use a new key for a new call. A key expires after 24 hours.",
    ),
    "too_many_failures": ProblemKind(
        429,
        "Too many failed authentications",
        "In the last minute too many calls from this address, with this access key or with bearer tokens, "
        "failed to authenticate. Until Retry-After seconds have passed all such calls are refused, even valid "
        "ones. Correct the key, the clock, or the text that is signed.",
    ),
    "too_many_stored_answers": ProblemKind(
        429,
        "The key has too many stored responses",
        "Responses to calls with an Idempotency-Key are stored for 24 hours, and their number for one access "
        "key is limited. Nothing was changed. Send the call again after Retry-After seconds, or without the "
        "header if it may take effect twice.",
    ),
    "rate_limited": ProblemKind(
        429,
        "A rate limit is reached",
        "The key, or all keys of its owner together, have reached a rate limit. The detail names the limit; "
        "the prefix `owner.` marks a limit of the owner. The call was not charged. It fits after Retry-After "
        "seconds, unless other calls use the units first.",
    ),
    "quota_exceeded": ProblemKind(
        429,
        "A quota is used up",
        "The key, or all keys of its owner together, have used up the quota of this day or month, in UTC. The "
        "call was not charged. Retry-After is the number of seconds until the next period. An operator can "
        "raise the quota.",
    ),
    "headers_too_large": ProblemKind(
        431,
        "The headers are too large",
        "The request line, the headers or the trailers have more bytes or lines than the service accepts. The "
        "connection was closed. Send fewer or shorter headers.",
    ),
    "internal_error": ProblemKind(
        500,
        "Internal error",
        "The service failed. Give the request_id to the operator, who finds the cause in the log.",
    ),
    "upgrade_with_body": ProblemKind(
        501,
        "A request with a body cannot ask for another protocol",
        "The request has the headers Upgrade and Connection: upgrade, and a body. This service does not support that, "
        "and the connection was closed. Nothing was changed. Send the request again without these headers. If the "
        "client sends them to offer HTTP/2, configure it to use HTTP/1.1.",
    ),
    "commit_unknown": ProblemKind(
        500,
        "It is unknown whether the change was committed",
        "The connection to the database was lost during COMMIT, so the change may be stored or not. Read the "
        "row before you retry, or retry with the same Idempotency-Key.",
    ),
    "server_busy": ProblemKind(
        503,
        "The service is at its capacity",
        "The service has reached its limit of connections, waiting requests or memory for bodies, or closed "
        "this idle connection in favour of another one. The request was not processed. Try again after "
        "Retry-After seconds.",
    ),
    "server_not_started": ProblemKind(
        503,
        "The server has not started the application",
        "The server has not run the startup of the application (its ASGI lifespan), and the operator must correct this. "
        "Until then, requests with Transfer-Encoding or Upgrade are refused, because the server may parse them wrongly. "
        "Nothing was changed. A request with Content-Length is accepted.",
    ),
    "unavailable": ProblemKind(
        503,
        "The service is temporarily unavailable",
        "The database cannot be reached or is too busy. Nothing was changed. Try again after Retry-After "
        "seconds.",
    ),
}
