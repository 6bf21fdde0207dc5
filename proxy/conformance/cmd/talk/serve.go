package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	cases "ferrule/proxy/conformance/internal/interop"
	"ferrule/proxy/conformance/internal/websocket"
)

const (
	supplementPort = ":7001"
	webPort        = ":7002"
	streamsPort    = ":7003"

	// farewell is how a stream without an end is ended by a server that goes away.
	farewell = "this server goes away"
	// endlessGrace is how long such streams go on after SIGTERM.
	endlessGrace = time.Second
	// endless is the metadata that marks them.
	endless = "x-endless"
	// podHeader tells who answers.
	podHeader = "x-pod"
)

func serve(ctx context.Context) error {
	supplement, err := net.Listen("tcp", supplementPort)
	if err != nil {
		return err
	}
	streams, err := net.Listen("tcp", streamsPort)
	if err != nil {
		return err
	}
	web, err := net.Listen("tcp", webPort)
	if err != nil {
		return err
	}
	ended := make(chan error, 3)
	supplementServer := cases.NewSupplementServer()
	go func() { ended <- supplementServer.Serve(supplement) }()
	streamsServer := grpc.NewServer()
	pb.RegisterTestServiceServer(streamsServer, &echoing{TestServiceServer: interop.NewTestServer(), stop: ctx})
	go func() { ended <- streamsServer.Serve(streams) }()
	webServer := &http.Server{Handler: handler()}
	go func() { ended <- webServer.Serve(web) }()

	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	// As an application ends that follows its libraries' advice: at once, and in order.
	streamsServer.GracefulStop()
	supplementServer.Stop()
	return webServer.Close()
}

func handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/websocket", websocket.Handler)
	mux.HandleFunc("/status", func(writer http.ResponseWriter, request *http.Request) {
		code, err := strconv.Atoi(request.FormValue("code"))
		if err != nil {
			code = http.StatusOK
		}
		writer.WriteHeader(code)
	})
	return mux
}

// echoing answers each message of a stream with the message.
type echoing struct {
	pb.TestServiceServer
	stop context.Context
}

func (service *echoing) EmptyCall(ctx context.Context, _ *pb.Empty) (*pb.Empty, error) {
	return &pb.Empty{}, grpc.SetHeader(ctx, self())
}

// FullDuplexCall ends with its client; one that is marked endless also ends, with UNAVAILABLE, when the server does.
func (service *echoing) FullDuplexCall(stream pb.TestService_FullDuplexCallServer) error {
	if err := stream.SendHeader(self()); err != nil {
		return err
	}
	ends := make(<-chan struct{})
	if len(metadata.ValueFromIncomingContext(stream.Context(), endless)) > 0 {
		ends = after(service.stop, endlessGrace)
	}
	received := make(chan error)
	requests := make(chan *pb.StreamingOutputCallRequest)
	go func() {
		for {
			request, err := stream.Recv()
			if err != nil {
				select {
				case received <- err:
				case <-stream.Context().Done():
				}
				return
			}
			select {
			case requests <- request:
			case <-stream.Context().Done():
				return
			}
		}
	}()
	for {
		select {
		case request := <-requests:
			if err := stream.Send(&pb.StreamingOutputCallResponse{Payload: request.Payload}); err != nil {
				return err
			}
		case err := <-received:
			if err == io.EOF {
				return nil
			}
			return err
		case <-ends:
			return status.Error(codes.Unavailable, farewell)
		}
	}
}

// after is closed some time after the context has ended.
func after(ctx context.Context, grace time.Duration) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		<-ctx.Done()
		time.Sleep(grace)
		close(done)
	}()
	return done
}

func self() metadata.MD {
	name, err := os.Hostname()
	if err != nil {
		name = fmt.Sprint("unknown: ", err)
	}
	return metadata.Pairs(podHeader, name)
}
