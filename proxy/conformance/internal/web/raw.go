package web

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// client1 are checks of HTTP/1's own wire format.
var client1 = []plain{
	{"20 pipelined requests are answered in order", pipelining},
	{"pipelined requests with bodies", pipelinedBodies},
	{"HTTP/1.0 ends with the connection", http10},
	{"HTTP/1.0 with keep-alive", http10KeepAlive},
	{"absolute form", absoluteForm},
	{"OPTIONS *", asterisk},
	{"a head in pieces", pieces},
	{"chunks of one byte, with trailers", smallChunks},
	{"Connection: close is honoured", closing},
}

// proxied1 are checks of what a hop takes away.
var proxied1 = []plain{
	{"hop-by-hop fields stay behind", hopByHop},
}

// both1 are checks that need HTTP/1 at both ends.
var both1 = []plain{
	{"CONNECT opens a tunnel", connect},
	{"an upgrade to another protocol", upgrade},
}

// wire is a connection whose responses are read one by one.
type wire struct {
	net.Conn
	reader *bufio.Reader
}

func (target *Target) wire(ctx context.Context) (*wire, error) {
	connection, err := (&net.Dialer{}).DialContext(ctx, "tcp", target.Address)
	if err != nil {
		return nil, err
	}
	_ = connection.SetDeadline(time.Now().Add(10 * time.Second))
	return &wire{connection, bufio.NewReader(connection)}, nil
}

// next reads a response to a request with this method.
func (wire *wire) next(method string) (answer, error) {
	response, err := http.ReadResponse(wire.reader, &http.Request{Method: method})
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return answer{response, string(body)}, err
}

// ended tells whether the peer has closed the connection and sent nothing more.
func (wire *wire) ended() error {
	if rest, err := io.ReadAll(wire.reader); err != nil || len(rest) > 0 {
		return fmt.Errorf("expected the end of the connection, got %q: %w", short(string(rest)), err)
	}
	return nil
}

func pipelining(ctx context.Context, target *Target) error {
	const count = 20
	wire, err := target.wire(ctx)
	if err != nil {
		return err
	}
	defer wire.Close()
	var all bytes.Buffer
	for number := range count {
		fmt.Fprintf(&all, "GET /number/%d HTTP/1.1\r\nHost: a\r\n\r\n", number)
	}
	if _, err := wire.Write(all.Bytes()); err != nil {
		return err
	}
	for number := range count {
		answer, err := wire.next(http.MethodGet)
		if err == nil {
			err = answer.has("X-Target", fmt.Sprintf("/number/%d", number))
		}
		if err != nil {
			return fmt.Errorf("response %d: %w", number, err)
		}
	}
	return nil
}

func pipelinedBodies(ctx context.Context, target *Target) error {
	wire, err := target.wire(ctx)
	if err != nil {
		return err
	}
	defer wire.Close()
	sent := "POST /digest HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc" +
		"POST /digest HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n" +
		"HEAD /sized?bytes=5 HTTP/1.1\r\nHost: a\r\n\r\n" +
		"GET /last HTTP/1.1\r\nHost: a\r\n\r\n"
	if _, err := io.WriteString(wire, sent); err != nil {
		return err
	}
	for index, want := range []struct{ method, name, value string }{
		{http.MethodPost, "X-Length", "3"},
		{http.MethodPost, "X-Length", "5"},
		{http.MethodHead, "Content-Length", "5"},
		{http.MethodGet, "X-Target", "/last"},
	} {
		answer, err := wire.next(want.method)
		if err == nil {
			err = answer.has(want.name, want.value)
		}
		if err != nil {
			return fmt.Errorf("response %d: %w", index, err)
		}
	}
	return nil
}

func http10(ctx context.Context, target *Target) error {
	wire, err := target.wire(ctx)
	if err != nil {
		return err
	}
	defer wire.Close()
	// A response without a length, which HTTP/1.1 would send in chunks.
	if _, err := io.WriteString(wire, "GET /trailers HTTP/1.0\r\n\r\n"); err != nil {
		return err
	}
	answer, err := wire.next(http.MethodGet)
	if err != nil {
		return err
	}
	if len(answer.TransferEncoding) > 0 {
		return errors.New("an HTTP/1.0 client was sent chunks")
	}
	return errors.Join(answer.is(http.StatusOK, "body"), wire.ended())
}

func http10KeepAlive(ctx context.Context, target *Target) error {
	wire, err := target.wire(ctx)
	if err != nil {
		return err
	}
	defer wire.Close()
	for range 2 {
		if _, err := io.WriteString(wire, "GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n"); err != nil {
			return err
		}
		answer, err := wire.next(http.MethodGet)
		if err != nil {
			return err
		}
		if err := errors.Join(answer.is(http.StatusOK, "ok"), answer.has("Connection", "keep-alive")); err != nil {
			return err
		}
	}
	return nil
}

func absoluteForm(ctx context.Context, target *Target) error {
	wire, err := target.wire(ctx)
	if err != nil {
		return err
	}
	defer wire.Close()
	if _, err := io.WriteString(wire, "GET http://right.example/path?q HTTP/1.1\r\nHost: wrong\r\n\r\n"); err != nil {
		return err
	}
	answer, err := wire.next(http.MethodGet)
	if err != nil {
		return err
	}
	if target.Endpoint == HTTP2 {
		return errors.Join(answer.has("X-Host", "right.example"), answer.has("X-Target", "/path?q"))
	}
	return answer.has("X-Host", "right.example")
}

func asterisk(ctx context.Context, target *Target) error {
	wire, err := target.wire(ctx)
	if err != nil {
		return err
	}
	defer wire.Close()
	if _, err := io.WriteString(wire, "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
		return err
	}
	answer, err := wire.next(http.MethodOptions)
	if err != nil {
		return err
	}
	// Go's server answers it by itself.
	return answer.is(http.StatusOK, "")
}

func pieces(ctx context.Context, target *Target) error {
	wire, err := target.wire(ctx)
	if err != nil {
		return err
	}
	defer wire.Close()
	for _, piece := range []string{"GET /pie", "ces HTTP/1.1\r", "\nHost: a\r\nX-", "Y: z\r\n\r", "\n"} {
		if _, err := io.WriteString(wire, piece); err != nil {
			return err
		}
		time.Sleep(15 * time.Millisecond)
	}
	answer, err := wire.next(http.MethodGet)
	if err != nil {
		return err
	}
	return answer.has("X-Target", "/pieces")
}

func smallChunks(ctx context.Context, target *Target) error {
	wire, err := target.wire(ctx)
	if err != nil {
		return err
	}
	defer wire.Close()
	const count = 2000
	sent := "POST /digest HTTP/1.1\r\nHost: a\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n" +
		strings.Repeat("1\r\nx\r\n", count) + "0\r\nX-Sum: seen\r\n\r\n"
	if _, err := io.WriteString(wire, sent); err != nil {
		return err
	}
	answer, err := wire.next(http.MethodPost)
	if err != nil {
		return err
	}
	return errors.Join(answer.has("X-Length", fmt.Sprint(count)), answer.has("X-Trailer", "seen"))
}

func closing(ctx context.Context, target *Target) error {
	wire, err := target.wire(ctx)
	if err != nil {
		return err
	}
	defer wire.Close()
	if _, err := io.WriteString(wire, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"); err != nil {
		return err
	}
	answer, err := wire.next(http.MethodGet)
	if err != nil {
		return err
	}
	if !answer.Close {
		return errors.New("the response does not say that the connection is closed")
	}
	return errors.Join(answer.is(http.StatusOK, "ok"), wire.ended())
}

func hopByHop(ctx context.Context, target *Target) error {
	request, err := target.request(ctx, http.MethodGet, "/head", nil)
	if err != nil {
		return err
	}
	request.Header.Set("Connection", "X-Hop")
	request.Header.Set("X-Hop", "one hop only")
	request.Header.Set("Keep-Alive", "timeout=5")
	request.Header.Set("Proxy-Connection", "keep-alive")
	answer, err := target.send(request)
	if err != nil {
		return err
	}
	return answer.has("X-Hop-Seen", "")
}

func connect(ctx context.Context, target *Target) error {
	return tunnel(ctx, target, "CONNECT server:80 HTTP/1.1\r\nHost: server:80\r\n\r\n", http.StatusOK)
}

func upgrade(ctx context.Context, target *Target) error {
	head := "GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo/1\r\n\r\n"
	return tunnel(ctx, target, head, http.StatusSwitchingProtocols)
}

// tunnel sends a head with the first bytes of what follows it, and has everything echoed.
func tunnel(ctx context.Context, target *Target, head string, status int) error {
	wire, err := target.wire(ctx)
	if err != nil {
		return err
	}
	defer wire.Close()
	if _, err := io.WriteString(wire, head); err != nil {
		return err
	}
	response, err := http.ReadResponse(wire.reader, &http.Request{Method: http.MethodConnect})
	if err != nil {
		return err
	}
	if response.StatusCode != status {
		return fmt.Errorf("answered with %s", response.Status)
	}
	for _, size := range []int{1, 100, 300_000} {
		sent, back := make([]byte, size), make([]byte, size)
		_, _ = io.ReadFull(endless{}, sent)
		go func() { _, _ = wire.Write(sent) }()
		if _, err := io.ReadFull(wire.reader, back); err != nil || !bytes.Equal(sent, back) {
			return fmt.Errorf("%d bytes did not come back as they were sent: %w", size, err)
		}
	}
	// The end of one direction goes through and the other one goes on.
	if err := wire.Conn.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	rest, err := io.ReadAll(wire.reader)
	if err != nil || string(rest) != "(the end)" {
		return fmt.Errorf("after the client's end came %q: %w", short(string(rest)), err)
	}
	return nil
}
