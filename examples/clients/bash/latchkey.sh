#!/usr/bin/env bash
# Signed calls to Latchkey with curl and openssl, and the verification of its webhooks.
#
#   export LATCHKEY_ACCESS_KEY=lka_…  LATCHKEY_SECRET=lks_…  LATCHKEY_FORM=query    # or message
#   ./latchkey.sh GET https://latchkey.example.com/v1/me
#   ./latchkey.sh POST https://latchkey.example.com/v1/me/keys '{"name": "k", "mode": "bearer", "scopes": []}'
#   ./latchkey.sh POST https://latchkey.example.com/v1/orders @order.json
#
# It prints the body of the response, and ends with 0 for a status below 400, 1 for others, and 2 without a response.
# LATCHKEY_IDEMPOTENCY_KEY names the key of a change; without it each change gets a new one. An empty one sends none.
# `source latchkey.sh` for the functions. The secret is in no argument of a program, so `ps` does not show it.

readonly LATCHKEY_RETRIES=3 LATCHKEY_PATIENCE_S=60 LATCHKEY_CLOCK_TOLERANCE_S=5 LATCHKEY_WEBHOOK_TOLERANCE_S=300
latchkey_ahead_s=0 # how far the server's clock is ahead of ours

latchkey_now() { date +%s; }
latchkey_nonce() { openssl rand -hex 16; }

# Print the bytes of standard input in hexadecimal.
latchkey_hex() { od -An -v -tx1 | tr -d ' \n'; }

# Print the HMAC-SHA256 of standard input in base64. The key is in hexadecimal. See RFC 2104; `openssl -hmac` would show it.
latchkey_hmac() {
    local key=$1 inner='' outer='' byte i
    ((${#key} <= 128)) || key=$(latchkey_bytes "$key" | openssl dgst -sha256 -binary | latchkey_hex)
    for ((i = 0; i < 128; i += 2)); do
        byte=${key:i:2}
        printf -v inner '%s\\x%02x' "$inner" $((16#${byte:-0} ^ 0x36))
        printf -v outer '%s\\x%02x' "$outer" $((16#${byte:-0} ^ 0x5c))
    done
    { printf '%b' "$outer"; { printf '%b' "$inner"; cat; } | openssl dgst -sha256 -binary; } |
        openssl dgst -sha256 -binary | openssl base64 -A
}

# Print the bytes that are given in hexadecimal.
latchkey_bytes() {
    local escapes='' i
    for ((i = 0; i < ${#1}; i += 2)); do escapes+="\\x${1:i:2}"; done
    printf '%b' "$escapes"
}

# Print standard input's HMAC with the secret of the key.
latchkey_mac() { latchkey_hmac "$(printf %s "$LATCHKEY_SECRET" | latchkey_hex)"; }

# Print a text with all but unreserved characters percent-encoded.
latchkey_quote() {
    local LC_ALL=C text=$1 quoted='' character i
    for ((i = 0; i < ${#text}; i++)); do
        character=${text:i:1}
        case $character in
        [A-Za-z0-9._~-]) quoted+=$character ;;
        *) printf -v quoted '%s%%%02X' "$quoted" "'$character" ;;
        esac
    done
    printf %s "$quoted"
}

# Sign a call: method, URL, file with the body or nothing, content type, idempotency key, time and nonce.
# The first line printed is the URL, and the others are the headers to send in addition.
latchkey_sign() {
    local method=$1 scheme=${2%%://*} rest=${2#*://} body=$3 type=$4 idempotency_key=$5 now=$6 nonce=$7
    local host path query='' params lines digest
    rest=${rest%%#*}
    if [[ $rest == *\?* ]]; then query=${rest#*\?} rest=${rest%%\?*}; fi
    host=${rest%%/*}
    path=${rest#"$host"}
    path=${path:-/}
    if [[ ${LATCHKEY_FORM:-query} == query ]]; then
        params="key=$LATCHKEY_ACCESS_KEY&timestamp=$now&nonce=$nonce&method=$method&path=$(latchkey_quote "$path")"
        if [[ -n $body || ! $method =~ ^(GET|HEAD|OPTIONS|TRACE)$ ]]; then
            params+="&content_sha256=$(openssl dgst -sha256 -binary <"${body:-/dev/null}" | latchkey_hex)"
        fi
        query=$params${query:+&$query}
        printf '%s\n' "$scheme://$host$path?$query" "secret: $(printf %s "$query" | latchkey_mac)"
        return
    fi
    host=$(printf %s "$host" | tr '[:upper:]' '[:lower:]')
    case $scheme:$host in http:*:80 | https:*:443) host=${host%:*} ;; esac
    params='"@method" "@authority" "@path" "@query"'
    lines=$(printf '%s\n' "\"@method\": $method" "\"@authority\": $host" "\"@path\": $path" "\"@query\": ?$query")
    printf '%s\n' "$scheme://$host$path${query:+?$query}"
    if [[ -n $type ]]; then params+=' "content-type"' lines+=$'\n'"\"content-type\": $type"; fi
    if [[ -n $body ]]; then
        digest="sha-256=:$(openssl dgst -sha256 -binary <"$body" | openssl base64 -A):"
        params+=' "content-digest"' lines+=$'\n'"\"content-digest\": $digest"
        printf '%s\n' "content-digest: $digest"
    fi
    if [[ -n $idempotency_key ]]; then
        params+=' "idempotency-key"' lines+=$'\n'"\"idempotency-key\": $idempotency_key"
    fi
    params="($params);created=$now;keyid=\"$LATCHKEY_ACCESS_KEY\";nonce=\"$nonce\";tag=\"latchkey-v1\""
    printf '%s\n' "signature-input: sig1=$params" \
        "signature: sig1=:$(printf '%s\n"@signature-params": %s' "$lines" "$params" | latchkey_mac):"
}

# Print the Unix time of a header `Date`; the second command is that of macOS and BSD.
latchkey_time_of() {
    date -d "$1" +%s 2>/dev/null || LC_ALL=C date -j -f '%a, %d %b %Y %T %Z' "$1" +%s 2>/dev/null
}

# Print the value of a header in a file of curl's --dump-header.
latchkey_header() { tr -d '\r' <"$1" | awk -F ': ' -v name="$2" 'tolower($1) == name { print $2; exit }'; }

# Send a call: method, URL, and the body, which is text or @ and a file. The response goes to standard output, and
# `latchkey_status` is its status. A 401 is repeated once if the server's clock differs from ours; 429 and 503 are
# repeated after `Retry-After` seconds, three times and a minute at most. An unsafe call has an `Idempotency-Key`.
latchkey_call() {
    local method=$1 url=$2 given=${3-} folder idempotency_key='' type='' body='' signed line ahead after ended=0
    local corrected='' retries=$LATCHKEY_RETRIES patience_s=$LATCHKEY_PATIENCE_S
    folder=$(mktemp -d) || return 2
    if [[ -n $given ]]; then
        body=$folder/body type=application/json
        if [[ $given == @* ]]; then cat "${given#@}"; else printf %s "$given"; fi >"$body" || return 2
    fi
    if [[ ! $method =~ ^(GET|HEAD|OPTIONS|TRACE)$ ]]; then
        idempotency_key=${LATCHKEY_IDEMPOTENCY_KEY-$(openssl rand -hex 16)}
    fi
    while true; do
        signed=$(latchkey_sign "$method" "$url" "$body" "$type" "$idempotency_key" \
            $(($(latchkey_now) + latchkey_ahead_s)) "$(latchkey_nonce)")
        local arguments=(--silent --show-error --globoff --path-as-is --max-time 30)
        if [[ $method == HEAD ]]; then arguments+=(--head); else arguments+=(--request "$method"); fi
        while read -r line; do arguments+=(--header "$line"); done <<<"${signed#*$'\n'}"
        [[ -z $idempotency_key ]] || arguments+=(--header "idempotency-key: $idempotency_key")
        [[ -z $body ]] || arguments+=(--header "content-type: $type" --data-binary "@$body")
        latchkey_status=$(curl "${arguments[@]}" --dump-header "$folder/headers" --output "$folder/response" \
            --write-out '%{http_code}' "${signed%%$'\n'*}") || { ended=2 && break; }
        if [[ $latchkey_status == 401 && -z $corrected ]]; then
            corrected=yes
            ahead=$(latchkey_time_of "$(latchkey_header "$folder/headers" date)") || break
            ahead=$((ahead - $(latchkey_now)))
            ((ahead - latchkey_ahead_s > LATCHKEY_CLOCK_TOLERANCE_S ||
                latchkey_ahead_s - ahead > LATCHKEY_CLOCK_TOLERANCE_S)) || break
            latchkey_ahead_s=$ahead
            continue
        fi
        after=$(latchkey_header "$folder/headers" retry-after)
        [[ $latchkey_status == 429 || $latchkey_status == 503 ]] || break
        # Without an Idempotency-Key, a change that got a 503 may have been made.
        [[ $latchkey_status == 429 || -n $idempotency_key || $method =~ ^(GET|HEAD|OPTIONS|TRACE)$ ]] || break
        [[ $after =~ ^[0-9]{1,6}$ ]] || break
        ((retries > 0 && 10#$after <= patience_s)) || break
        retries=$((retries - 1)) patience_s=$((patience_s - 10#$after))
        sleep "$after"
    done
    if [[ $ended == 0 ]]; then
        [[ $method == HEAD || ! -e $folder/response ]] || cat "$folder/response"
        ((latchkey_status < 400)) || ended=1
    fi
    rm -rf "$folder"
    return "$ended"
}

# Verify a webhook: its secret, and its headers webhook-id, webhook-timestamp and webhook-signature.
# Standard input is the body as it arrived. Succeeds if Latchkey has sent it within five minutes.
latchkey_verify_webhook() {
    local key=$1 id=$2 timestamp=$3 signatures age_s expected one
    read -ra signatures <<<"$4"
    [[ $timestamp =~ ^[0-9]{1,12}$ ]] || return 1
    age_s=$(($(latchkey_now) - 10#$timestamp))
    ((age_s <= LATCHKEY_WEBHOOK_TOLERANCE_S && -age_s <= LATCHKEY_WEBHOOK_TOLERANCE_S)) || return 1
    key=$(printf %s "${key#whsec_}" | openssl base64 -d -A | latchkey_hex)
    expected=v1,$({ printf %s "$id.$timestamp." && cat; } | latchkey_hmac "$key")
    for one in "${signatures[@]}"; do
        # The hashes are compared: how long a comparison of the signatures takes could show how far they agree.
        [[ $(printf %s "$one" | openssl dgst -sha256) != $(printf %s "$expected" | openssl dgst -sha256) ]] || return 0
    done
    return 1
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
    set -euo pipefail
    latchkey_call "$@"
fi
