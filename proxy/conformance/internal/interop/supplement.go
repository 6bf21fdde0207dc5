package interop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/interop"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Supplement are cases that the gRPC project describes but grpc-go's programs lack, and some that only a proxy in
// between makes worth asking; with grpc-go's library at both ends.
var Supplement = []SupplementCase{
	{Name: "compressed_unary", run: compressedUnary},
	{Name: "compressed_streaming", run: compressedStreaming},
	{Name: "large_metadata", run: largeMetadata},
	{Name: "deadline_reaches_the_server", run: deadlineReachesServer},
	{Name: "cancel_reaches_the_server", run: cancelReachesServer, OneProcess: true},
	{Name: "parallel_streams", run: parallelStreams},
	{Name: "bidirectional_4_MiB_each_way", run: bidirectional},
	{Name: "download_64_MiB", run: download},
	{Name: "upload_64_MiB", run: upload},
	{Name: "client_that_is_slow_to_begin", run: deadlineReachesServer, delay: 200 * time.Millisecond},
}

// SupplementCase is one of them.
type SupplementCase struct {
	Name string
	run  func(context.Context, pb.TestServiceClient) error
	// OneProcess tells that client and server must be one program, for they tell each other what they see.
	OneProcess bool
	// delay before the connection's first bytes: grpc-go's server greets its client at once, so then it speaks first.
	delay time.Duration
}

// ServeSupplement serves the interop service with gzip registered, and with handlers that tell what they see.
func ServeSupplement() (address string, stop func(), err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	server := NewSupplementServer()
	go func() { _ = server.Serve(listener) }()
	return listener.Addr().String(), server.Stop, nil
}

// NewSupplementServer is the server of the Supplement, to be served where its caller likes.
func NewSupplementServer() *grpc.Server {
	server := grpc.NewServer(grpc.UnaryInterceptor(tell))
	pb.RegisterTestServiceServer(server, &telling{TestServiceServer: interop.NewTestServer()})
	return server
}

// telling is the interop service, but for a call that waits for its own end.
type telling struct {
	pb.TestServiceServer
}

// StreamingInputCall ends with its client's cancellation where the metadata asks for that, and then counts it.
func (service *telling) StreamingInputCall(stream pb.TestService_StreamingInputCallServer) error {
	if values := metadata.ValueFromIncomingContext(stream.Context(), "x-cancelled"); len(values) == 1 {
		<-stream.Context().Done()
		cancelled <- values[0]
		return stream.Context().Err()
	}
	return service.TestServiceServer.StreamingInputCall(stream)
}

var cancelled = make(chan string, 16)

// tell answers metadata that ask what the server sees of a call.
func tell(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	if len(metadata.ValueFromIncomingContext(ctx, "x-tell-deadline")) > 0 {
		deadline, is := ctx.Deadline()
		if !is {
			return nil, status.Error(codes.FailedPrecondition, "the server sees no deadline")
		}
		if left := time.Until(deadline); left > 31*time.Second {
			return nil, status.Errorf(codes.FailedPrecondition, "the server sees a deadline in %v", left)
		}
	}
	if values := metadata.ValueFromIncomingContext(ctx, "x-large"); len(values) > 0 {
		if err := grpc.SetTrailer(ctx, metadata.Pairs("x-large-back", values[0])); err != nil {
			return nil, err
		}
	}
	return handle(ctx, request)
}

// Run runs the case at the address.
func (test SupplementCase) Run(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	dial := func(ctx context.Context, address string) (net.Conn, error) {
		connection, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		time.Sleep(test.delay)
		return connection, err
	}
	connection, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(dial))
	if err != nil {
		return err
	}
	defer connection.Close()
	return test.run(ctx, pb.NewTestServiceClient(connection))
}

func payload(size int) *pb.Payload {
	return &pb.Payload{Body: bytes.Repeat([]byte("ferrule "), size/8)}
}

func compressedUnary(ctx context.Context, client pb.TestServiceClient) error {
	request := &pb.SimpleRequest{ResponseSize: 314_159, Payload: payload(271_824)}
	reply, err := client.UnaryCall(ctx, request, grpc.UseCompressor(gzip.Name))
	if err != nil {
		return err
	}
	if size := len(reply.GetPayload().GetBody()); size != 314_159 {
		return fmt.Errorf("response has %d bytes", size)
	}
	return nil
}

func compressedStreaming(ctx context.Context, client pb.TestServiceClient) error {
	stream, err := client.StreamingInputCall(ctx, grpc.UseCompressor(gzip.Name))
	if err != nil {
		return err
	}
	total := 0
	for _, size := range []int{27_184, 8, 1_828, 45_904} {
		payload := payload(size)
		total += len(payload.Body)
		if err := stream.Send(&pb.StreamingInputCallRequest{Payload: payload}); err != nil {
			return err
		}
	}
	reply, err := stream.CloseAndRecv()
	if err != nil {
		return err
	}
	if got := int(reply.AggregatedPayloadSize); got != total {
		return fmt.Errorf("the server took %d bytes of %d", got, total)
	}
	return nil
}

func largeMetadata(ctx context.Context, client pb.TestServiceClient) error {
	large := strings.Repeat("m", 12*1024)
	var trailer metadata.MD
	ctx = metadata.AppendToOutgoingContext(ctx, "x-large", large)
	if _, err := client.UnaryCall(ctx, &pb.SimpleRequest{}, grpc.Trailer(&trailer)); err != nil {
		return err
	}
	if got := trailer.Get("x-large-back"); len(got) != 1 || got[0] != large {
		return fmt.Errorf("a trailer of %d bytes came back as %d values", len(large), len(got))
	}
	return nil
}

func deadlineReachesServer(ctx context.Context, client pb.TestServiceClient) error {
	ctx = metadata.AppendToOutgoingContext(ctx, "x-tell-deadline", "1")
	_, err := client.UnaryCall(ctx, &pb.SimpleRequest{})
	return err
}

func cancelReachesServer(ctx context.Context, client pb.TestServiceClient) error {
	name := fmt.Sprint(time.Now().UnixNano())
	called, cancel := context.WithCancel(metadata.AppendToOutgoingContext(ctx, "x-cancelled", name))
	defer cancel()
	stream, err := client.StreamingInputCall(called)
	if err != nil {
		return err
	}
	if err := stream.Send(&pb.StreamingInputCallRequest{Payload: payload(8)}); err != nil {
		return err
	}
	// The call must have begun at the server, or there is nothing to cancel there.
	time.Sleep(200 * time.Millisecond)
	cancel()
	for {
		select {
		case seen := <-cancelled:
			if seen == name {
				return nil
			}
		case <-time.After(3 * time.Second):
			return errors.New("the server did not see the cancellation within 3 s")
		}
	}
}

func parallelStreams(ctx context.Context, client pb.TestServiceClient) error {
	const streams, rounds = 150, 5
	results := make(chan error, streams)
	for range streams {
		go func() { results <- pingPong(ctx, client, rounds, 1024) }()
	}
	for range streams {
		if err := <-results; err != nil {
			return err
		}
	}
	return nil
}

func bidirectional(ctx context.Context, client pb.TestServiceClient) error {
	return pingPong(ctx, client, 32, 128*1024)
}

const (
	bulkMessages = 1024
	bulkSize     = 64 * 1024
)

// download has grpc-go's client estimate the bandwidth all the way, with a PING for each round trip.
func download(ctx context.Context, client pb.TestServiceClient) error {
	request := &pb.StreamingOutputCallRequest{}
	for range bulkMessages {
		request.ResponseParameters = append(request.ResponseParameters, &pb.ResponseParameters{Size: bulkSize})
	}
	stream, err := client.StreamingOutputCall(ctx, request)
	if err != nil {
		return err
	}
	for number := range bulkMessages {
		reply, err := stream.Recv()
		if err != nil {
			return fmt.Errorf("message %d: %w", number, err)
		}
		if got := len(reply.GetPayload().GetBody()); got != bulkSize {
			return fmt.Errorf("message %d has %d bytes", number, got)
		}
	}
	if _, err := stream.Recv(); err != io.EOF {
		return fmt.Errorf("after the last message: %w", err)
	}
	return nil
}

func upload(ctx context.Context, client pb.TestServiceClient) error {
	stream, err := client.StreamingInputCall(ctx)
	if err != nil {
		return err
	}
	message := &pb.StreamingInputCallRequest{Payload: payload(bulkSize)}
	for number := range bulkMessages {
		if err := stream.Send(message); err != nil {
			_, err = stream.CloseAndRecv()
			return fmt.Errorf("message %d: %w", number, err)
		}
	}
	reply, err := stream.CloseAndRecv()
	if err != nil {
		return err
	}
	if got := reply.AggregatedPayloadSize; got != bulkMessages*bulkSize {
		return fmt.Errorf("the server took %d bytes", got)
	}
	return nil
}

// pingPong sends a number of messages without waiting, and takes in as many of the same size.
func pingPong(ctx context.Context, client pb.TestServiceClient, rounds, size int) error {
	stream, err := client.FullDuplexCall(ctx)
	if err != nil {
		return err
	}
	sent := make(chan error, 1)
	go func() {
		for range rounds {
			request := &pb.StreamingOutputCallRequest{
				ResponseParameters: []*pb.ResponseParameters{{Size: int32(size)}},
				Payload:            payload(size),
			}
			if err := stream.Send(request); err != nil {
				sent <- err
				return
			}
		}
		sent <- stream.CloseSend()
	}()
	for round := range rounds {
		reply, err := stream.Recv()
		if err != nil {
			return fmt.Errorf("message %d: %w", round, err)
		}
		if got := len(reply.GetPayload().GetBody()); got != size {
			return fmt.Errorf("message %d has %d bytes", round, got)
		}
	}
	if _, err := stream.Recv(); err != io.EOF {
		return fmt.Errorf("after the last message: %w", err)
	}
	return <-sent
}
