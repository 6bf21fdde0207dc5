package main

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const (
	// callers of each kind, at once.
	callers = 4
	// pause between two messages of a stream, and between two calls.
	pause = 20 * time.Millisecond
	// shortMessages of a stream that ends by itself.
	shortMessages = 25
	// patience with a call or a message.
	patience = 10 * time.Second
	// mostFailures that are told.
	mostFailures = 20
)

// load is what a standard client saw of a server's calls and streams. A failure is whatever reaches the application:
// what the library sends again by itself, because it was provably not processed, is none.
type load struct {
	Unary         int            `json:"unary"`
	ShortStreams  int            `json:"shortStreams"`
	EndlessOpened int            `json:"endlessOpened"`
	EndlessEnded  int            `json:"endlessEnded"`
	Messages      int            `json:"messages"`
	Pods          map[string]int `json:"pods"`
	Failures      []string       `json:"failures"`
	Failed        int            `json:"failed"`

	lock sync.Mutex
}

// streams puts load on a server until the input ends: unary calls, streams that end by themselves, and streams that go
// on until the server ends them with its farewell, which then begin again at once.
func streams(ctx context.Context, address string, input io.Reader) (*load, error) {
	connection, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	defer connection.Close()
	client := pb.NewTestServiceClient(connection)
	running, stop := context.WithCancel(ctx)
	go func() {
		// An error on standard input is an end of it as well.
		_, _ = io.Copy(io.Discard, input)
		stop()
	}()
	load := &load{Pods: map[string]int{}, Failures: []string{}}
	var group sync.WaitGroup
	for range callers {
		for _, work := range []func(context.Context, pb.TestServiceClient) error{load.unary, load.short, load.endless} {
			group.Go(func() {
				for running.Err() == nil {
					load.note(work(running, client))
				}
			})
		}
	}
	group.Wait()
	return load, nil
}

// Work under way when the load is stopped is finished: so it has a context of its own.
func (load *load) unary(running context.Context, client pb.TestServiceClient) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(running), patience)
	defer cancel()
	var header metadata.MD
	if _, err := client.EmptyCall(ctx, &pb.Empty{}, grpc.Header(&header)); err != nil {
		return fmt.Errorf("unary call: %w", err)
	}
	load.count(header, func() { load.Unary++ })
	time.Sleep(pause)
	return nil
}

func (load *load) short(running context.Context, client pb.TestServiceClient) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(running), patience)
	defer cancel()
	stream, err := client.FullDuplexCall(ctx)
	if err != nil {
		return fmt.Errorf("short stream: %w", err)
	}
	for number := range shortMessages {
		if err := load.exchange(stream, number); err != nil {
			return fmt.Errorf("short stream, message %d: %w", number, err)
		}
		time.Sleep(pause)
	}
	if err := stream.CloseSend(); err != nil {
		return fmt.Errorf("end of a short stream: %w", err)
	}
	if _, err := stream.Recv(); err != io.EOF {
		return fmt.Errorf("end of a short stream: %w", err)
	}
	header, err := stream.Header()
	load.count(header, func() { load.ShortStreams++ })
	return err
}

// endless is one stream, until its server or the load ends. The last message, to which the farewell came instead of an
// answer, is the only one that may be without.
func (load *load) endless(running context.Context, client pb.TestServiceClient) error {
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(context.WithoutCancel(running), endless, "1"))
	defer cancel()
	stream, err := client.FullDuplexCall(ctx)
	if err != nil {
		return fmt.Errorf("endless stream: %w", err)
	}
	for number := 0; running.Err() == nil; number++ {
		// It has no deadline of its own, so that none is told to the server.
		watchdog := time.AfterFunc(patience, cancel)
		err := load.exchange(stream, number)
		watchdog.Stop()
		if number > 0 && status.Code(err) == codes.Unavailable && status.Convert(err).Message() == farewell {
			load.count(nil, func() { load.EndlessEnded++ })
			return nil
		}
		if err != nil {
			return fmt.Errorf("endless stream, message %d: %w", number, err)
		}
		if number == 0 {
			header, err := stream.Header()
			if err != nil {
				return fmt.Errorf("header of an endless stream: %w", err)
			}
			load.count(header, func() { load.EndlessOpened++ })
		}
		time.Sleep(pause)
	}
	return nil
}

func (load *load) exchange(stream pb.TestService_FullDuplexCallClient, number int) error {
	text := fmt.Sprint("message ", number)
	// When the server has ended the stream, sending fails with EOF and receiving tells why.
	if err := stream.Send(&pb.StreamingOutputCallRequest{Payload: &pb.Payload{Body: []byte(text)}}); err != nil && err != io.EOF {
		return err
	}
	reply, err := stream.Recv()
	if err != nil {
		return err
	}
	if got := string(reply.GetPayload().GetBody()); got != text {
		return fmt.Errorf("sent %q, got %q", text, got)
	}
	load.count(nil, func() { load.Messages++ })
	return nil
}

func (load *load) count(header metadata.MD, add func()) {
	load.lock.Lock()
	defer load.lock.Unlock()
	add()
	for _, pod := range header.Get(podHeader) {
		load.Pods[pod]++
	}
}

func (load *load) note(err error) {
	if err == nil {
		return
	}
	// Not so many that they are a load of another kind.
	defer time.Sleep(pause)
	load.lock.Lock()
	defer load.lock.Unlock()
	load.Failed++
	if len(load.Failures) < mostFailures {
		load.Failures = append(load.Failures, time.Now().Format("15:04:05.000 ")+err.Error())
	}
}
