// Drive the client in Go; drive.py lists the commands.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	latchkey "latchkey.example/client"
)

func main() {
	given := os.Args[2:]
	transport := &latchkey.Transport{AccessKey: os.Getenv("KEY"), Secret: os.Getenv("SECRET")}
	switch os.Args[1] {
	case "mac":
		for _, text := range given[1:] {
			fmt.Println(latchkey.MAC([]byte(given[0]), text))
		}
	case "sign":
		transport.Form = latchkey.Form(given[0])
		request := newRequest(given[1], given[2], given[3])
		for number, name := range []string{"Content-Type", "Idempotency-Key"} {
			if value := given[4+number]; value != "" {
				request.Header.Set(name, value)
			}
		}
		before := request.Header.Clone()
		transport.Sign(request, []byte(given[3]), time.Unix(number(given[6]), 0), given[7])
		fmt.Println(request.URL)
		for name := range request.Header {
			if before.Get(name) == "" {
				fmt.Printf("%s: %s\n", strings.ToLower(name), request.Header.Get(name))
			}
		}
	case "call":
		transport.Form = latchkey.Form(given[0])
		offset := time.Duration(number(given[4])) * time.Second
		transport.Now = func() time.Time { return time.Now().Add(offset) }
		client := http.Client{Transport: transport}
		response, err := client.Do(newRequest(given[1], given[2], given[3]))
		check(err)
		body, err := io.ReadAll(response.Body)
		check(err)
		fmt.Printf("%d\n%s", response.StatusCode, body)
	case "verify":
		body, err := io.ReadAll(os.Stdin)
		check(err)
		header := http.Header{}
		for number, name := range []string{"Webhook-Id", "Webhook-Timestamp", "Webhook-Signature"} {
			header.Set(name, given[1+number])
		}
		if latchkey.VerifyWebhook(given[0], header, body, time.Now()) != nil {
			fmt.Println("invalid")
			return
		}
		var event struct{ Type string }
		check(json.Unmarshal(body, &event))
		fmt.Println("valid", event.Type)
	}
}

func newRequest(method, url, body string) *http.Request {
	request, err := http.NewRequest(method, url, strings.NewReader(body))
	check(err)
	return request
}

func number(text string) int64 {
	found, err := strconv.ParseInt(text, 10, 64)
	check(err)
	return found
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
