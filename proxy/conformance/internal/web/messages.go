package web

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync/atomic"
)

// messages are checks of single messages: nothing is lost, nothing is added.
var messages = []plain{
	{"the server sees the version that it declares", version},
	{"methods pass, with and without a body", methods},
	{"path and query pass byte by byte", targets},
	{"status codes pass", statuses},
	{"204 and 304 have no body", bodiless},
	{"HEAD has the length and no body", headOnly},
	{"a body with a length: 1 MiB", func(ctx context.Context, target *Target) error { return digest(ctx, target, true) }},
	{"a body without a length: 1 MiB", func(ctx context.Context, target *Target) error { return digest(ctx, target, false) }},
	{"a response of 4 MiB with its length", download},
	{"trailers of request and response", trailers},
	{"100-continue comes from the server", expectContinue},
	{"a refused expectation gets no 100", expectationFails},
	{"103 Early Hints pass", earlyHints},
	{"100 fields and one of 16 KiB", largeHead},
	{"repeated fields stay apart, in order", repeated},
	{"Cookie arrives as one field", cookies},
	{"Host passes unchanged", host},
}

func version(ctx context.Context, target *Target) error {
	answer, err := target.get(ctx, "/")
	if err != nil {
		return err
	}
	if answer.ProtoMajor != target.Client {
		return fmt.Errorf("the client is answered in %s", answer.Proto)
	}
	want := map[int]string{HTTP1: "HTTP/1.1", HTTP2: "HTTP/2.0"}[target.Endpoint]
	return errors.Join(answer.is(http.StatusOK, "ok"), answer.has("X-Proto", want))
}

func methods(ctx context.Context, target *Target) error {
	for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "X-OWN"} {
		for _, body := range []string{"", "some bytes"} {
			request, err := target.request(ctx, method, "/any", strings.NewReader(body))
			if err != nil {
				return err
			}
			answer, err := target.send(request)
			if err == nil {
				err = errors.Join(answer.is(http.StatusOK, "ok"), answer.has("X-Method", method))
			}
			if err != nil {
				return fmt.Errorf("%s with %d bytes: %w", method, len(body), err)
			}
		}
	}
	return nil
}

func targets(ctx context.Context, target *Target) error {
	for _, path := range []string{"/a%2Fb", "/a/../b", "//a//b", "/%E4%B8%96?x=%20&y=+;z", "/a?", "/~!$&'()*+,;=:@", "/a?b?c=/d"} {
		request, err := target.request(ctx, http.MethodGet, "/", nil)
		if err != nil {
			return err
		}
		request.URL.Opaque = "//" + target.Address + path
		if target.Client == HTTP1 {
			// Opaque would be sent as the absolute form.
			request.URL.Opaque = path
			if strings.HasPrefix(path, "//") {
				continue
			}
		}
		path, query, has := strings.Cut(path, "?")
		request.URL.RawQuery, request.URL.ForceQuery = query, has && query == ""
		if has {
			request.URL.Opaque = strings.TrimSuffix(request.URL.Opaque, "?"+query)
			path += "?" + query
		}
		answer, err := target.send(request)
		if err == nil {
			err = answer.has("X-Target", path)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

func statuses(ctx context.Context, target *Target) error {
	for _, code := range []int{200, 201, 206, 299, 301, 400, 401, 404, 418, 421, 429, 451, 500, 502, 503, 504, 599} {
		answer, err := target.get(ctx, fmt.Sprintf("/status?code=%d", code))
		if err == nil {
			err = answer.is(code, fmt.Sprintf("status %d", code))
		}
		if err != nil {
			return fmt.Errorf("%d: %w", code, err)
		}
	}
	return nil
}

func bodiless(ctx context.Context, target *Target) error {
	for _, code := range []int{204, 304, 204, 200} {
		answer, err := target.get(ctx, fmt.Sprintf("/status?code=%d", code))
		if err != nil {
			return err
		}
		want := ""
		if code == 200 {
			want = "status 200"
		}
		if err := answer.is(code, want); err != nil {
			return err
		}
	}
	return nil
}

func headOnly(ctx context.Context, target *Target) error {
	// Twice: a body where none belongs would be taken for the next response.
	for range 2 {
		request, err := target.request(ctx, http.MethodHead, "/sized?bytes=12345", nil)
		if err != nil {
			return err
		}
		answer, err := target.send(request)
		if err != nil {
			return err
		}
		if err := errors.Join(answer.is(http.StatusOK, ""), answer.has("Content-Length", "12345")); err != nil {
			return err
		}
	}
	return nil
}

func digest(ctx context.Context, target *Target, length bool) error {
	body := make([]byte, 1<<20)
	_, _ = io.ReadFull(endless{}, body)
	sum := sha256.Sum256(body)
	var reader io.Reader = bytes.NewReader(body)
	want := fmt.Sprint(len(body))
	if !length {
		reader, want = struct{ io.Reader }{reader}, "-1"
	}
	request, err := target.request(ctx, http.MethodPost, "/digest", reader)
	if err != nil {
		return err
	}
	answer, err := target.send(request)
	if err != nil {
		return err
	}
	return errors.Join(
		answer.is(http.StatusOK, hex.EncodeToString(sum[:])),
		answer.has("X-Length", fmt.Sprint(len(body))),
		answer.has("X-Content-Length", want),
	)
}

func download(ctx context.Context, target *Target) error {
	answer, err := target.get(ctx, fmt.Sprintf("/sized?bytes=%d", 4<<20))
	if err != nil {
		return err
	}
	if answer.ContentLength != 4<<20 || len(answer.body) != 4<<20 {
		return fmt.Errorf("length %d, %d bytes", answer.ContentLength, len(answer.body))
	}
	return nil
}

func trailers(ctx context.Context, target *Target) error {
	request, err := target.request(ctx, http.MethodPost, "/trailers", struct{ io.Reader }{strings.NewReader("body")})
	if err != nil {
		return err
	}
	request.Trailer = http.Header{"X-Sum": {"of the request"}}
	// Without it an HTTP/1 server may take trailers for unwanted and drop them (RFC 9110 §6.5.1).
	request.Header.Set("TE", "trailers")
	answer, err := target.send(request)
	if err != nil {
		return err
	}
	if got := answer.Trailer.Get("X-Sum"); got != "of the response" {
		return fmt.Errorf("the response's trailer arrives as %q", got)
	}
	if got := answer.Trailer.Get("X-Seen"); got != "of the request" {
		return fmt.Errorf("the request's trailer arrives as %q", got)
	}
	return answer.is(http.StatusOK, "body")
}

func expectContinue(ctx context.Context, target *Target) error {
	var continued atomic.Bool
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got100Continue: func() { continued.Store(true) }})
	request, err := target.request(traced, http.MethodPost, "/digest", strings.NewReader("after 100"))
	if err != nil {
		return err
	}
	request.Header.Set("Expect", "100-continue")
	answer, err := target.send(request)
	if err != nil {
		return err
	}
	if !continued.Load() {
		return errors.New("no 100 Continue came")
	}
	return answer.has("X-Length", "9")
}

func expectationFails(ctx context.Context, target *Target) error {
	var continued atomic.Bool
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got100Continue: func() { continued.Store(true) }})
	request, err := target.request(traced, http.MethodPost, "/refuse", strings.NewReader("not wanted"))
	if err != nil {
		return err
	}
	request.Header.Set("Expect", "100-continue")
	answer, err := target.send(request)
	if err != nil {
		return err
	}
	if continued.Load() {
		return errors.New("a 100 Continue came that the server had not sent")
	}
	return answer.is(http.StatusExpectationFailed, "")
}

func earlyHints(ctx context.Context, target *Target) error {
	var link atomic.Value
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
			if code == http.StatusEarlyHints {
				link.Store(header.Get("Link"))
			}
			return nil
		},
	})
	answer, err := target.get(traced, "/hints")
	if err != nil {
		return err
	}
	if got := link.Load(); got != "</style.css>; rel=preload" {
		return fmt.Errorf("the hints' Link arrives as %v", got)
	}
	return answer.is(http.StatusOK, "after the hints")
}

func largeHead(ctx context.Context, target *Target) error {
	large := strings.Repeat("v", 16*1024)
	request, err := target.request(ctx, http.MethodGet, "/head", nil)
	if err != nil {
		return err
	}
	request.Header.Set("X-Large", large)
	for number := range 100 {
		request.Header.Set(fmt.Sprintf("X-Field-%d", number), "value")
	}
	answer, err := target.send(request)
	if err != nil {
		return err
	}
	return errors.Join(answer.has("X-Fields", "100"), answer.has("X-Large-Back", large))
}

func repeated(ctx context.Context, target *Target) error {
	request, err := target.request(ctx, http.MethodGet, "/head", nil)
	if err != nil {
		return err
	}
	request.Header["X-Twice"] = []string{"first, with a comma", "second"}
	answer, err := target.send(request)
	if err != nil {
		return err
	}
	for name, want := range map[string][]string{
		"X-Twice-Back": {"first, with a comma", "second"},
		"Set-Cookie":   {"a=1; Path=/", "b=2"},
	} {
		if got := answer.Header[http.CanonicalHeaderKey(name)]; fmt.Sprint(got) != fmt.Sprint(want) || len(got) != len(want) {
			return fmt.Errorf("%s: %q instead of %q", name, got, want)
		}
	}
	return nil
}

func cookies(ctx context.Context, target *Target) error {
	request, err := target.request(ctx, http.MethodGet, "/head", nil)
	if err != nil {
		return err
	}
	// Over HTTP/2 Go's client sends the pairs as fields of their own (RFC 9113 §8.2.3).
	request.Header.Set("Cookie", "a=1; b=2; c=3")
	answer, err := target.send(request)
	if err != nil {
		return err
	}
	if got := answer.Header["X-Cookie"]; len(got) != 1 || got[0] != "a=1; b=2; c=3" {
		return fmt.Errorf("Cookie arrives as %q", got)
	}
	return nil
}

func host(ctx context.Context, target *Target) error {
	request, err := target.request(ctx, http.MethodGet, "/", nil)
	if err != nil {
		return err
	}
	request.Host = "Some.Host.example:8080"
	answer, err := target.send(request)
	if err != nil {
		return err
	}
	return answer.has("X-Host", "Some.Host.example:8080")
}
