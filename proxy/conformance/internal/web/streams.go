package web

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// streams are checks of what goes on at the same time.
var streams = []plain{
	{"a response streams while the server still works on it", gated},
	{"request and response stream at once", duplex},
	{"300 requests at once", parallel},
	{"a server that breaks off is never a complete response", aborted},
	{"a client that gives up is seen by the server", canceled},
	{"a body that nobody reads holds up nobody else", unread},
	{"an early response to a body that is not read", early},
}

// client2 are checks that only a client of HTTP/2 makes sense of.
var client2 = []plain{
	{"many streams on one connection, in any order", outOfOrder},
}

func unique() string {
	return fmt.Sprint(time.Now().UnixNano())
}

func gated(ctx context.Context, target *Target) error {
	gate := unique()
	request, err := target.request(ctx, http.MethodGet, "/gated?gate="+gate, nil)
	if err != nil {
		return err
	}
	response, err := target.http.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	first := make([]byte, 5)
	if _, err := io.ReadFull(response.Body, first); err != nil || string(first) != "first" {
		return fmt.Errorf("the first part arrives as %q: %w", first, err)
	}
	if _, err := target.get(ctx, "/open?gate="+gate); err != nil {
		return err
	}
	rest, err := io.ReadAll(response.Body)
	if err != nil || string(rest) != " second" {
		return fmt.Errorf("the rest arrives as %q: %w", rest, err)
	}
	return nil
}

func duplex(ctx context.Context, target *Target) error {
	reader, writer := io.Pipe()
	request, err := target.request(ctx, http.MethodPost, "/echo", reader)
	if err != nil {
		return err
	}
	response, err := target.http.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	buffer := make([]byte, 64*1024)
	for round := range 20 {
		piece := buffer[:1+round*3000]
		_, _ = io.ReadFull(endless{}, piece)
		go func() { _, _ = writer.Write(piece) }()
		back := make([]byte, len(piece))
		if _, err := io.ReadFull(response.Body, back); err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
	}
	writer.Close()
	if rest, err := io.ReadAll(response.Body); err != nil || len(rest) > 0 {
		return fmt.Errorf("after the end %d bytes: %w", len(rest), err)
	}
	return nil
}

// requests sends this many GET requests at once.
func requests(ctx context.Context, target *Target, count int, path func(int) string, check func(int, answer) error) error {
	results := make(chan error, count)
	for number := range count {
		go func() {
			answer, err := target.get(ctx, path(number))
			if err == nil {
				err = check(number, answer)
			}
			results <- err
		}()
	}
	var errs []error
	for range count {
		if err := <-results; err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return fmt.Errorf("%d of %d failed, the first: %w", len(errs), count, errs[0])
	}
	return nil
}

func parallel(ctx context.Context, target *Target) error {
	return requests(ctx, target, 300,
		func(number int) string { return fmt.Sprintf("/slow?name=%d", number) },
		func(number int, answer answer) error { return answer.is(http.StatusOK, fmt.Sprint(number)) },
	)
}

func outOfOrder(ctx context.Context, target *Target) error {
	const count = 50
	size := func(number int) int { return (number * 7919) % 100_000 }
	return requests(ctx, target, count,
		func(number int) string { return fmt.Sprintf("/sized?bytes=%d", size(number)) },
		func(number int, answer answer) error {
			if len(answer.body) != size(number) {
				return fmt.Errorf("%d bytes instead of %d", len(answer.body), size(number))
			}
			return nil
		},
	)
}

func aborted(ctx context.Context, target *Target) error {
	answer, err := target.get(ctx, "/abort")
	if err == nil {
		return fmt.Errorf("%s with %d bytes of 1000 was taken for complete", answer.Status, len(answer.body))
	}
	if answer.Response == nil {
		return fmt.Errorf("the head, which the server had sent, did not arrive: %w", err)
	}
	again, err := target.get(ctx, "/")
	if err != nil {
		return fmt.Errorf("and after that: %w", err)
	}
	return again.is(http.StatusOK, "ok")
}

func canceled(ctx context.Context, target *Target) error {
	name := unique()
	canceling, cancel := context.WithCancel(ctx)
	defer cancel()
	request, err := target.request(canceling, http.MethodGet, "/hang?name="+name, nil)
	if err != nil {
		return err
	}
	response, err := target.http.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	cancel()
	for range 150 {
		if _, seen := target.Server.canceled.Load(name); seen {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return errors.New("the server did not see it within 3 s")
}

func unread(ctx context.Context, target *Target) error {
	const size = 16 << 20
	request, err := target.request(ctx, http.MethodGet, fmt.Sprintf("/sized?bytes=%d", size), nil)
	if err != nil {
		return err
	}
	response, err := target.http.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	// The windows between here and there fill up.
	time.Sleep(300 * time.Millisecond)
	prompt, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	for range 20 {
		if _, err := target.get(prompt, "/"); err != nil {
			return fmt.Errorf("a request beside it: %w", err)
		}
	}
	count, err := io.Copy(io.Discard, response.Body)
	if err != nil || count != size {
		return fmt.Errorf("then %d of %d bytes came: %w", count, size, err)
	}
	return nil
}

func early(ctx context.Context, target *Target) error {
	// The server answers at once; the body, of which nobody reads a byte, must not hold the response up.
	body := io.LimitReader(endless{}, 8<<20)
	request, err := target.request(ctx, http.MethodPost, "/status?code=413", body)
	if err != nil {
		return err
	}
	answer, err := target.send(request)
	if err != nil {
		return err
	}
	return answer.is(http.StatusRequestEntityTooLarge, "status 413")
}
