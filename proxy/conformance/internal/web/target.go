package web

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os/exec"
	"strings"
	"time"
)

// HTTP versions.
const (
	HTTP1 = 1
	HTTP2 = 2
)

// Target is what a check talks to, and how.
type Target struct {
	// Client's HTTP version, and the one that the server is to see.
	Client, Endpoint int
	// Address to connect to.
	Address string
	// Server that is to be reached there.
	Server *Server
	// Curl is the curl program.
	Curl string

	http *http.Client
}

// NewTarget makes a target with a client of its own.
func NewTarget(client, endpoint int, address string, server *Server, curl string) *Target {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(client == HTTP1)
	protocols.SetUnencryptedHTTP2(client == HTTP2)
	transport := &http.Transport{
		Protocols:             protocols,
		DisableCompression:    true,
		MaxIdleConnsPerHost:   500,
		ExpectContinueTimeout: 20 * time.Second,
	}
	own := &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return &Target{client, endpoint, address, server, curl, own}
}

// Close ends the client's connections.
func (target *Target) Close() {
	target.http.CloseIdleConnections()
}

// Case is a check.
type Case struct {
	Name string
	// Needs tells whether it makes sense for a target.
	Needs func(*Target) bool
	Run   func(context.Context, *Target) error
}

// Limit is how long a case may take.
const Limit = 30 * time.Second

// Check runs the case.
func (test Case) Check(ctx context.Context, target *Target) error {
	ctx, cancel := context.WithTimeout(ctx, Limit)
	defer cancel()
	return test.Run(ctx, target)
}

// Cases are all checks in their order.
func Cases() []Case {
	all := func(*Target) bool { return true }
	from1 := func(target *Target) bool { return target.Client == HTTP1 }
	var cases []Case
	for _, group := range []struct {
		needs func(*Target) bool
		cases []plain
	}{
		{all, messages},
		{all, streams},
		{from1, client1},
		{from1, curl1},
		{func(target *Target) bool { return from1(target) && target.Address != target.Server.Address }, proxied1},
		{func(target *Target) bool { return target.Client == HTTP2 }, client2},
		{func(target *Target) bool { return from1(target) && target.Endpoint == HTTP1 }, both1},
		{all, withCurl},
	} {
		for _, test := range group.cases {
			cases = append(cases, Case{test.name, group.needs, test.run})
		}
	}
	return cases
}

type plain struct {
	name string
	run  func(context.Context, *Target) error
}

// answer is a response whose body was read to its end.
type answer struct {
	*http.Response
	body string
}

func (target *Target) request(ctx context.Context, method, path string, body io.Reader) (*http.Request, error) {
	return http.NewRequestWithContext(ctx, method, "http://"+target.Address+path, body)
}

func (target *Target) get(ctx context.Context, path string) (answer, error) {
	request, err := target.request(ctx, http.MethodGet, path, nil)
	if err != nil {
		return answer{}, err
	}
	return target.send(request)
}

func (target *Target) send(request *http.Request) (answer, error) {
	response, err := target.http.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return answer{response, string(body)}, fmt.Errorf("after %d bytes of the body: %w", len(body), err)
	}
	if cause := response.Header.Get("Ferrule-Error"); cause != "" {
		return answer{response, string(body)}, fmt.Errorf("the proxy answered by itself: %s: %s", response.Status, body)
	}
	return answer{response, string(body)}, nil
}

// has checks a field of the response.
func (answer answer) has(name, want string) error {
	if got := answer.Header.Get(name); got != want {
		return fmt.Errorf("%s: %q instead of %q", name, got, want)
	}
	return nil
}

// is checks status and body.
func (answer answer) is(status int, body string) error {
	if answer.StatusCode != status || answer.body != body {
		return fmt.Errorf("%s with %q instead of %d with %q", answer.Status, short(answer.body), status, short(body))
	}
	return nil
}

func short(text string) string {
	if len(text) > 80 {
		return text[:80] + "…"
	}
	return text
}

// curl runs curl; its version of HTTP is that of the target's client.
func (target *Target) curl(ctx context.Context, arguments ...string) (string, error) {
	version := "--http1.1"
	if target.Client == HTTP2 {
		version = "--http2-prior-knowledge"
	}
	arguments = append([]string{"--silent", "--show-error", "--noproxy", "*", version}, arguments...)
	output, err := exec.CommandContext(ctx, target.Curl, arguments...).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return string(output), fmt.Errorf("curl: %w: %s", err, strings.TrimSpace(string(exit.Stderr)))
	}
	return string(output), err
}

func (target *Target) url(path string) string {
	return "http://" + target.Address + path
}

func discard() *log.Logger {
	return log.New(io.Discard, "", 0)
}
