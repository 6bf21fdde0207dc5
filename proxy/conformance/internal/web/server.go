// Package web checks HTTP semantics end to end, with Go's client and curl, over HTTP/1 and HTTP/2, and across both.
package web

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"ferrule/proxy/conformance/internal/websocket"
)

// Server is the server behind the proxies.
type Server struct {
	// Address where it listens.
	Address string

	server   *http.Server
	served   atomic.Int64
	gates    sync.Map
	canceled sync.Map
}

// Options of a server.
type Options struct {
	// HTTP1 and HTTP2 are the protocols that it speaks, in the clear.
	HTTP1, HTTP2 bool
	// Linger makes it close connections in stages, so that a client never meets a reset.
	Linger bool
}

// Serve starts a server.
func Serve(options Options) (*Server, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	if options.Linger {
		listener = lingering{listener}
	}
	server := &Server{Address: listener.Addr().String()}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(options.HTTP1)
	protocols.SetUnencryptedHTTP2(options.HTTP2)
	server.server = &http.Server{
		Handler:   server,
		Protocols: protocols,
		// What peers do wrong is for the checks to tell.
		ErrorLog: discard(),
	}
	go func() { _ = server.server.Serve(listener) }()
	return server, nil
}

// Close ends it.
func (server *Server) Close() {
	_ = server.server.Close()
}

// Served counts the requests that reached it.
func (server *Server) Served() int {
	return int(server.served.Load())
}

// gate is a channel by name: a request waits at it until another one opens it.
func (server *Server) gate(name string) chan struct{} {
	gate, _ := server.gates.LoadOrStore(name, make(chan struct{}))
	return gate.(chan struct{})
}

// ServeHTTP answers each path with its own behaviour.
func (server *Server) ServeHTTP(writer http.ResponseWriter, request *http.Request) {
	server.served.Add(1)
	header := writer.Header()
	header.Set("X-Proto", request.Proto)
	query := request.URL.Query()
	if request.Method == http.MethodConnect {
		server.tunnel(writer, http.StatusOK, "")
		return
	}
	switch path := request.URL.Path; {
	case path == "/websocket":
		websocket.Handler(writer, request)
	case path == "/upgrade":
		server.tunnel(writer, http.StatusSwitchingProtocols, request.Header.Get("Upgrade"))
	case path == "/echo":
		server.echo(writer, request)
	case path == "/digest":
		sum := sha256.New()
		count, err := io.Copy(sum, request.Body)
		if err != nil {
			http.Error(writer, err.Error(), http.StatusBadRequest)
			return
		}
		header.Set("X-Length", strconv.FormatInt(count, 10))
		header.Set("X-Content-Length", strconv.FormatInt(request.ContentLength, 10))
		header.Set("X-Trailer", request.Trailer.Get("X-Sum"))
		fmt.Fprint(writer, hex.EncodeToString(sum.Sum(nil)))
	case path == "/trailers":
		_, _ = io.Copy(io.Discard, request.Body)
		header.Set("Trailer", "X-Sum, X-Seen")
		_, _ = io.WriteString(writer, "body")
		// With a length, which Go would add to a body that is complete, HTTP/1 has no place for trailers.
		_ = http.NewResponseController(writer).Flush()
		header.Set("X-Sum", "of the response")
		header.Set("X-Seen", request.Trailer.Get("X-Sum"))
	case path == "/status":
		code, _ := strconv.Atoi(query.Get("code"))
		writer.WriteHeader(code)
		if code >= 200 && code != http.StatusNoContent && code != http.StatusNotModified {
			fmt.Fprintf(writer, "status %d", code)
		}
	case path == "/sized":
		// A response before the request's end would race with what h2spec sends on a stream that it leaves open.
		_, _ = io.Copy(io.Discard, request.Body)
		size, _ := strconv.Atoi(query.Get("bytes"))
		header.Set("Content-Length", strconv.Itoa(size))
		if request.Method != http.MethodHead {
			_, _ = io.CopyN(writer, endless{}, int64(size))
		}
	case path == "/hints":
		header.Set("Link", "</style.css>; rel=preload")
		writer.WriteHeader(http.StatusEarlyHints)
		header.Del("Link")
		_, _ = io.WriteString(writer, "after the hints")
	case path == "/refuse":
		// Answered without a look at the body: Go's server sends 100 only when it is read.
		writer.WriteHeader(http.StatusExpectationFailed)
	case path == "/gated":
		_, _ = io.WriteString(writer, "first")
		_ = http.NewResponseController(writer).Flush()
		<-server.gate(query.Get("gate"))
		_, _ = io.WriteString(writer, " second")
	case path == "/open":
		close(server.gate(query.Get("gate")))
	case path == "/abort":
		header.Set("Content-Length", "1000")
		_, _ = io.WriteString(writer, "only this")
		_ = http.NewResponseController(writer).Flush()
		panic(http.ErrAbortHandler)
	case path == "/hang":
		_, _ = io.WriteString(writer, "hanging")
		_ = http.NewResponseController(writer).Flush()
		<-request.Context().Done()
		server.canceled.Store(query.Get("name"), true)
	case path == "/slow":
		time.Sleep(100 * time.Millisecond)
		_, _ = io.WriteString(writer, query.Get("name"))
	case path == "/head":
		fields := 0
		for name := range request.Header {
			if strings.HasPrefix(name, "X-Field-") {
				fields++
			}
		}
		header.Set("X-Fields", strconv.Itoa(fields))
		header.Set("X-Large-Back", request.Header.Get("X-Large"))
		for _, value := range request.Header["X-Twice"] {
			header.Add("X-Twice-Back", value)
		}
		header["X-Cookie"] = request.Header["Cookie"]
		header.Add("Set-Cookie", "a=1; Path=/")
		header.Add("Set-Cookie", "b=2")
		header.Set("X-Hop-Seen", strings.Join([]string{
			request.Header.Get("X-Hop"), request.Header.Get("Keep-Alive"), request.Header.Get("Proxy-Connection"),
		}, ""))
		header.Set("X-Host", request.Host)
	default:
		header.Set("X-Method", request.Method)
		header.Set("X-Target", request.RequestURI)
		header.Set("X-Host", request.Host)
		_, _ = io.WriteString(writer, "ok")
	}
}

// echo sends back what comes in while it comes in.
func (server *Server) echo(writer http.ResponseWriter, request *http.Request) {
	control := http.NewResponseController(writer)
	// HTTP/2 is always full duplex and says that it knows no such call.
	_ = control.EnableFullDuplex()
	if request.ContentLength > 0 {
		writer.Header().Set("Content-Length", strconv.FormatInt(request.ContentLength, 10))
	}
	writer.WriteHeader(http.StatusOK)
	_ = control.Flush()
	buffer := make([]byte, 32*1024)
	for {
		count, err := request.Body.Read(buffer)
		if count > 0 {
			if _, err := writer.Write(buffer[:count]); err != nil {
				return
			}
			_ = control.Flush()
		}
		if err != nil {
			return
		}
	}
}

// tunnel takes the connection over and echoes bytes until the client ends its side.
func (server *Server) tunnel(writer http.ResponseWriter, status int, upgrade string) {
	connection, buffered, err := http.NewResponseController(writer).Hijack()
	if err != nil {
		http.Error(writer, err.Error(), http.StatusNotImplemented)
		return
	}
	defer connection.Close()
	fmt.Fprintf(connection, "HTTP/1.1 %d %s\r\n", status, http.StatusText(status))
	if upgrade != "" {
		fmt.Fprintf(connection, "Connection: Upgrade\r\nUpgrade: %s\r\n", upgrade)
	}
	fmt.Fprint(connection, "\r\n")
	_, _ = io.Copy(connection, buffered)
	fmt.Fprint(connection, "(the end)")
}

// endless reads as an endless row of the alphabet.
type endless struct{}

func (endless) Read(buffer []byte) (int, error) {
	for index := range buffer {
		buffer[index] = 'a' + byte(index%26)
	}
	return len(buffer), nil
}
