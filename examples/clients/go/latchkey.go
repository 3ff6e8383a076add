// Package latchkey signs calls to Latchkey, and verifies its webhooks. It uses the standard library only.
package latchkey

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Form is the place of the signature.
type Form string

const (
	// Query puts the signature into the query and the header "secret".
	Query Form = "query"
	// Message puts the signature into headers (RFC 9421).
	Message Form = "message"
)

const (
	retries          = 3
	patience         = time.Minute
	clockTolerance   = 5 * time.Second
	webhookTolerance = 5 * time.Minute
)

// Transport signs each call of an http.Client, and repeats it where that is safe:
//
//	client := http.Client{Transport: &latchkey.Transport{AccessKey: "lka_…", Secret: "lks_…"}}
//
// A 401 is repeated once if the server's clock differs from ours. 429 and 503 are repeated after Retry-After seconds, three
// times and for a minute at most. An unsafe call has an Idempotency-Key, the same in each attempt: the server carries it
// out once. A body without a Content-Type is sent as application/json.
type Transport struct {
	AccessKey string
	Secret    string
	// Form is Query if it is empty.
	Form Form
	// NotIdempotent is for routes that do not accept an Idempotency-Key.
	NotIdempotent bool
	// Base sends the calls; nil means http.DefaultTransport.
	Base http.RoundTripper
	// Now returns the time; nil means time.Now.
	Now func() time.Time

	mutex sync.Mutex
	ahead time.Duration // how far the server's clock is ahead of ours
}

// RoundTrip implements http.RoundTripper.
func (t *Transport) RoundTrip(request *http.Request) (*http.Response, error) {
	if request.Response != nil {
		return nil, errors.New("a redirect is not signed")
	}
	body, err := readBody(request)
	if err != nil {
		return nil, err
	}
	headers := request.Header.Clone()
	if headers == nil {
		headers = http.Header{}
	}
	if len(body) > 0 && headers.Get("Content-Type") == "" {
		headers.Set("Content-Type", "application/json")
	}
	if !t.NotIdempotent && !isSafe(request.Method) && headers.Get("Idempotency-Key") == "" {
		headers.Set("Idempotency-Key", randomText())
	}
	// Without an Idempotency-Key, a change that got a 503 may have been made.
	repeats503 := isSafe(request.Method) || headers.Get("Idempotency-Key") != ""

	corrected, left := false, patience
	for count := 0; ; {
		sent := request.Clone(request.Context())
		sent.Header = headers.Clone()
		sent.Body, sent.GetBody, sent.ContentLength = io.NopCloser(bytes.NewReader(body)), nil, int64(len(body))
		if len(body) == 0 {
			sent.Body = http.NoBody
		}
		t.Sign(sent, body, t.now().Add(t.aheadNow()), randomText())
		response, err := t.base().RoundTrip(sent)
		if err != nil {
			return nil, err
		}
		var wait time.Duration
		switch {
		case response.StatusCode == http.StatusUnauthorized && !corrected && t.correctClock(response.Header.Get("Date")):
			corrected = true
		case response.StatusCode == http.StatusTooManyRequests,
			response.StatusCode == http.StatusServiceUnavailable && repeats503:
			seconds, err := strconv.ParseUint(response.Header.Get("Retry-After"), 10, 16)
			wait = time.Duration(seconds) * time.Second
			if err != nil || count == retries || wait > left {
				return response, nil
			}
			count++
			left -= wait
		default:
			return response, nil
		}
		io.Copy(io.Discard, io.LimitReader(response.Body, 1<<20))
		response.Body.Close()
		select {
		case <-time.After(wait):
		case <-request.Context().Done():
			return nil, request.Context().Err()
		}
	}
}

// Sign adds the signature to a request, which is to be sent once and unchanged.
func (t *Transport) Sign(request *http.Request, body []byte, now time.Time, nonce string) {
	created := strconv.FormatInt(now.Unix(), 10)
	path, query := request.URL.EscapedPath(), request.URL.RawQuery
	if path == "" {
		path = "/"
	}
	if t.Form != Message {
		own := "key=" + t.AccessKey + "&timestamp=" + created + "&nonce=" + nonce +
			"&method=" + request.Method + "&path=" + quote(path)
		if len(body) > 0 || !isSafe(request.Method) {
			digest := sha256.Sum256(body)
			own += "&content_sha256=" + hex.EncodeToString(digest[:])
		}
		if query != "" {
			own += "&" + query
		}
		target := *request.URL
		target.RawQuery = own
		request.URL = &target
		request.Header.Set("Secret", MAC([]byte(t.Secret), own))
		return
	}
	host := request.Host
	if host == "" {
		host = request.URL.Host
	}
	// The default port of the scheme is neither sent nor signed.
	host = strings.TrimSuffix(strings.ToLower(host), map[string]string{"http": ":80", "https": ":443"}[request.URL.Scheme])
	request.Host = host
	var names, lines []string
	cover := func(name, value string) {
		names = append(names, `"`+name+`"`)
		lines = append(lines, `"`+name+`": `+value)
	}
	cover("@method", request.Method)
	cover("@authority", host)
	cover("@path", path)
	cover("@query", "?"+query)
	if value := request.Header.Get("Content-Type"); value != "" {
		cover("content-type", value)
	}
	if len(body) > 0 {
		digest := sha256.Sum256(body)
		value := "sha-256=:" + base64.StdEncoding.EncodeToString(digest[:]) + ":"
		request.Header.Set("Content-Digest", value)
		cover("content-digest", value)
	}
	if value := request.Header.Get("Idempotency-Key"); value != "" {
		cover("idempotency-key", value)
	}
	parameters := fmt.Sprintf(`(%s);created=%s;keyid="%s";nonce="%s";tag="latchkey-v1"`,
		strings.Join(names, " "), created, t.AccessKey, nonce)
	lines = append(lines, `"@signature-params": `+parameters)
	request.Header.Set("Signature-Input", "sig1="+parameters)
	request.Header.Set("Signature", "sig1=:"+MAC([]byte(t.Secret), strings.Join(lines, "\n"))+":")
}

// correctClock uses the time of the server, and reports whether the clocks were different.
// Over http anybody on the way can write this header: use https.
func (t *Transport) correctClock(date string) bool {
	server, err := http.ParseTime(date)
	if err != nil {
		return false
	}
	t.mutex.Lock()
	defer t.mutex.Unlock()
	ahead := server.Sub(t.now())
	if difference := ahead - t.ahead; -clockTolerance <= difference && difference <= clockTolerance {
		return false
	}
	t.ahead = ahead
	return true
}

func (t *Transport) aheadNow() time.Duration {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	return t.ahead
}

func (t *Transport) now() time.Time {
	if t.Now == nil {
		return time.Now()
	}
	return t.Now()
}

func (t *Transport) base() http.RoundTripper {
	if t.Base == nil {
		return http.DefaultTransport
	}
	return t.Base
}

// ErrWebhook means that a request was not sent by Latchkey, or is too old; answer it with 400.
var ErrWebhook = errors.New("the webhook has no valid signature, or is more than five minutes old")

// VerifyWebhook returns nil if Latchkey has sent a request. The secret is "whsec_…", and the body is the bytes that arrived.
func VerifyWebhook(secret string, header http.Header, body []byte, now time.Time) error {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil {
		return err
	}
	id, timestamp := header.Get("Webhook-Id"), header.Get("Webhook-Timestamp")
	seconds, err := strconv.ParseUint(timestamp, 10, 40)
	if err != nil {
		return ErrWebhook
	}
	age := now.Sub(time.Unix(int64(seconds), 0))
	if age > webhookTolerance || -age > webhookTolerance {
		return ErrWebhook
	}
	expected := "v1," + MAC(key, id+"."+timestamp+"."+string(body))
	for _, signature := range strings.Split(header.Get("Webhook-Signature"), " ") {
		if hmac.Equal([]byte(signature), []byte(expected)) {
			return nil
		}
	}
	return ErrWebhook
}

// MAC returns the HMAC-SHA256 of a text in base64.
func MAC(key []byte, text string) string {
	hash := hmac.New(sha256.New, key)
	hash.Write([]byte(text))
	return base64.StdEncoding.EncodeToString(hash.Sum(nil))
}

// quote percent-encodes all but unreserved characters.
func quote(text string) string {
	return strings.ReplaceAll(url.QueryEscape(text), "+", "%20")
}

func randomText() string {
	random := make([]byte, 16)
	if _, err := rand.Read(random); err != nil {
		panic(err)
	}
	return hex.EncodeToString(random)
}

func isSafe(method string) bool {
	return method == "" || method == http.MethodGet || method == http.MethodHead ||
		method == http.MethodOptions || method == http.MethodTrace
}

func readBody(request *http.Request) ([]byte, error) {
	if request.Body == nil {
		return nil, nil
	}
	defer request.Body.Close()
	return io.ReadAll(request.Body)
}
