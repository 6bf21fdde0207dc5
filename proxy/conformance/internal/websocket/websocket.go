// Package websocket checks WebSocket (RFC 6455) with a standard client and server.
package websocket

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	ws "github.com/coder/websocket"
)

// limit of a message, above the largest that is sent.
const limit = 8 << 20

// closing is the text that makes the server close first.
const closing = "close, please"

// Handler echoes messages; it negotiates the subprotocol `echo`.
func Handler(writer http.ResponseWriter, request *http.Request) {
	connection, err := ws.Accept(writer, request, &ws.AcceptOptions{
		Subprotocols:    []string{"echo"},
		CompressionMode: ws.CompressionContextTakeover,
	})
	if err != nil {
		return
	}
	defer connection.CloseNow()
	connection.SetReadLimit(limit)
	for {
		kind, message, err := connection.Read(request.Context())
		if err != nil {
			return
		}
		if string(message) == closing {
			_ = connection.Close(4001, "as you wish")
			return
		}
		if connection.Write(request.Context(), kind, message) != nil {
			return
		}
	}
}

// path of Handler at the server.
const path = "/websocket"

// Case is a check.
type Case struct {
	Name string
	run  func(context.Context, string) error
}

// Cases are the checks in their order.
var Cases = []Case{
	{"text", func(ctx context.Context, url string) error {
		return echo(ctx, url, ws.MessageText, []byte("Grüße, 世界"))
	}},
	{"empty message", func(ctx context.Context, url string) error { return echo(ctx, url, ws.MessageText, nil) }},
	{"binary", func(ctx context.Context, url string) error { return echo(ctx, url, ws.MessageBinary, noise(1000)) }},
	{"binary, 1 MiB", func(ctx context.Context, url string) error { return echo(ctx, url, ws.MessageBinary, noise(1<<20)) }},
	{"text, compressed (permessage-deflate), 1 MiB", compressed},
	{"fragmented message", fragmented},
	{"1,000 small messages", many},
	{"ping and pong", ping},
	{"subprotocol is negotiated", subprotocol},
	{"close by the client", closeByClient},
	{"close by the server, with code and reason", closeByServer},
	{"32 connections at once", parallel},
	{"a connection idle for 2 s still works", idle},
	{"a refused handshake is an ordinary response", refused},
}

// Run runs the case at the address of a server that has Handler at /websocket, and answers /status with the code it asks for.
func (test Case) Run(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return test.run(ctx, "ws://"+address+path)
}

func dial(ctx context.Context, url string, options *ws.DialOptions) (*ws.Conn, error) {
	connection, _, err := ws.Dial(ctx, url, options)
	if err == nil {
		connection.SetReadLimit(limit)
	}
	return connection, err
}

func noise(size int) []byte {
	message := make([]byte, size)
	_, _ = rand.Read(message)
	return message
}

func echo(ctx context.Context, url string, kind ws.MessageType, message []byte) error {
	connection, err := dial(ctx, url, nil)
	if err != nil {
		return err
	}
	defer connection.CloseNow()
	if err := exchange(ctx, connection, kind, message); err != nil {
		return err
	}
	return connection.Close(ws.StatusNormalClosure, "")
}

func exchange(ctx context.Context, connection *ws.Conn, kind ws.MessageType, message []byte) error {
	if err := connection.Write(ctx, kind, message); err != nil {
		return err
	}
	return expect(ctx, connection, kind, message)
}

func expect(ctx context.Context, connection *ws.Conn, kind ws.MessageType, message []byte) error {
	gotKind, got, err := connection.Read(ctx)
	if err != nil {
		return err
	}
	if gotKind != kind || !bytes.Equal(got, message) {
		return fmt.Errorf("sent %v of %d bytes, got %v of %d bytes", kind, len(message), gotKind, len(got))
	}
	return nil
}

func compressed(ctx context.Context, url string) error {
	connection, response, err := ws.Dial(ctx, url, &ws.DialOptions{CompressionMode: ws.CompressionContextTakeover})
	if err != nil {
		return err
	}
	defer connection.CloseNow()
	if response.Header.Get("Sec-WebSocket-Extensions") == "" {
		return errors.New("the extension was not negotiated")
	}
	connection.SetReadLimit(limit)
	return exchange(ctx, connection, ws.MessageText, bytes.Repeat([]byte("all work and no play "), 50_000))
}

func fragmented(ctx context.Context, url string) error {
	connection, err := dial(ctx, url, nil)
	if err != nil {
		return err
	}
	defer connection.CloseNow()
	writer, err := connection.Writer(ctx, ws.MessageBinary)
	if err != nil {
		return err
	}
	message := noise(64 * 1024)
	for piece := range bytes.SplitSeq(message, []byte{0}) {
		if _, err := writer.Write(piece); err != nil {
			return err
		}
		if _, err := writer.Write([]byte{0}); err != nil {
			return err
		}
	}
	if err := writer.Close(); err != nil {
		return err
	}
	return expect(ctx, connection, ws.MessageBinary, append(message, 0))
}

func many(ctx context.Context, url string) error {
	connection, err := dial(ctx, url, nil)
	if err != nil {
		return err
	}
	defer connection.CloseNow()
	for number := range 1000 {
		if err := exchange(ctx, connection, ws.MessageText, fmt.Appendf(nil, "message %d", number)); err != nil {
			return fmt.Errorf("message %d: %w", number, err)
		}
	}
	return nil
}

func ping(ctx context.Context, url string) error {
	connection, err := dial(ctx, url, nil)
	if err != nil {
		return err
	}
	defer connection.CloseNow()
	// Pongs are taken in by whoever reads.
	ctx = connection.CloseRead(ctx)
	for range 10 {
		if err := connection.Ping(ctx); err != nil {
			return err
		}
	}
	return nil
}

func subprotocol(ctx context.Context, url string) error {
	connection, err := dial(ctx, url, &ws.DialOptions{Subprotocols: []string{"other", "echo"}})
	if err != nil {
		return err
	}
	defer connection.CloseNow()
	if got := connection.Subprotocol(); got != "echo" {
		return fmt.Errorf("negotiated %q", got)
	}
	return nil
}

func closeByClient(ctx context.Context, url string) error {
	connection, err := dial(ctx, url, nil)
	if err != nil {
		return err
	}
	defer connection.CloseNow()
	// Fails unless the server's own Close frame comes back.
	return connection.Close(ws.StatusGoingAway, "bye")
}

func closeByServer(ctx context.Context, url string) error {
	connection, err := dial(ctx, url, nil)
	if err != nil {
		return err
	}
	defer connection.CloseNow()
	if err := connection.Write(ctx, ws.MessageText, []byte(closing)); err != nil {
		return err
	}
	_, _, err = connection.Read(ctx)
	var closed ws.CloseError
	if !errors.As(err, &closed) || closed.Code != 4001 || closed.Reason != "as you wish" {
		return fmt.Errorf("expected the server's code 4001 and its reason, got: %w", err)
	}
	return nil
}

func parallel(ctx context.Context, url string) error {
	const connections = 32
	results := make(chan error, connections)
	for range connections {
		go func() { results <- echo(ctx, url, ws.MessageBinary, noise(32*1024)) }()
	}
	for range connections {
		if err := <-results; err != nil {
			return err
		}
	}
	return nil
}

func idle(ctx context.Context, url string) error {
	connection, err := dial(ctx, url, nil)
	if err != nil {
		return err
	}
	defer connection.CloseNow()
	if err := exchange(ctx, connection, ws.MessageText, []byte("here")); err != nil {
		return err
	}
	time.Sleep(2 * time.Second)
	return exchange(ctx, connection, ws.MessageText, []byte("still here"))
}

func refused(ctx context.Context, url string) error {
	_, response, err := ws.Dial(ctx, strings.Replace(url, path, "/status?code=404", 1), nil)
	if err == nil {
		return errors.New("the handshake was accepted")
	}
	if response == nil {
		return fmt.Errorf("no response: %w", err)
	}
	if response.StatusCode != http.StatusNotFound {
		return fmt.Errorf("expected the server's 404, got %s", response.Status)
	}
	return nil
}
