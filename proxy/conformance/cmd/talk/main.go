// Talk speaks gRPC and WebSocket with the libraries that most applications use, as server and as client. Packed into
// an image it runs in the pods of the cluster tests, which know nothing of the mesh.
//
//	talk serve                              gRPC on 7001 and 7003, WebSocket on 7002; SIGTERM ends it in order
//	talk grpc INTEROP SUPPLEMENT            asks all cases of gRPC at two addresses
//	talk websocket ADDRESS                  asks all cases of WebSocket
//	talk streams ADDRESS                    calls and streams until standard input ends
//	talk idle                               waits for SIGTERM
//
// What it finds is the last line of standard output, as JSON.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"ferrule/proxy/conformance/internal/interop"
	"ferrule/proxy/conformance/internal/websocket"
)

// interopClient is where the image has grpc-go's own client.
const interopClient = "/grpc-client"

// findings are how a suite's cases ended.
type findings struct {
	Passed []string          `json:"passed"`
	Failed map[string]string `json:"failed"`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "talk:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, arguments []string) error {
	mode := ""
	if len(arguments) > 0 {
		mode, arguments = arguments[0], arguments[1:]
	}
	switch {
	case mode == "serve" && len(arguments) == 0:
		return serve(ctx)
	case mode == "idle" && len(arguments) == 0:
		<-ctx.Done()
		return nil
	case mode == "grpc" && len(arguments) == 2:
		return tell(askGRPC(ctx, arguments[0], arguments[1]))
	case mode == "websocket" && len(arguments) == 1:
		return tell(askWebSocket(ctx, arguments[0]))
	case mode == "streams" && len(arguments) == 1:
		summary, err := streams(ctx, arguments[0], os.Stdin)
		if err != nil {
			return err
		}
		return tell(summary)
	}
	return fmt.Errorf("want serve, idle, grpc INTEROP SUPPLEMENT, websocket ADDRESS or streams ADDRESS, not %q", os.Args[1:])
}

func askGRPC(ctx context.Context, official, supplement string) findings {
	found := findings{Failed: map[string]string{}}
	for _, test := range interop.Cases {
		found.add(test.Name, interop.Run(ctx, interopClient, official, test))
	}
	for _, test := range interop.Supplement {
		if !test.OneProcess {
			found.add(test.Name, test.Run(ctx, supplement))
		}
	}
	return found
}

func askWebSocket(ctx context.Context, address string) findings {
	found := findings{Failed: map[string]string{}}
	for _, test := range websocket.Cases {
		found.add(test.Name, test.Run(ctx, address))
	}
	return found
}

func (found *findings) add(name string, err error) {
	if err == nil {
		found.Passed = append(found.Passed, name)
		return
	}
	found.Failed[name] = err.Error()
}

func tell(value any) error {
	return json.NewEncoder(os.Stdout).Encode(value)
}
