// Probe is the one program the cluster's own images need: it holds a pod's
// namespaces open, and it is both ends of the cluster's self-test.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

const usage = `usage:
  probe pause               wait for SIGTERM
  probe serve ADDRESS TEXT  answer every HTTP request with TEXT
  probe get URL             print the body of URL, retried for 10 s
  probe lookup NAME         print the addresses of NAME
  probe say TEXT            print TEXT`

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 1 && args[0] == "pause":
		pause()
		return nil
	case len(args) == 3 && args[0] == "serve":
		return serve(args[1], args[2])
	case len(args) == 2 && args[0] == "get":
		return get(args[1])
	case len(args) == 2 && args[0] == "lookup":
		return lookup(args[1])
	case len(args) == 2 && args[0] == "say":
		fmt.Println(args[1])
		return nil
	}
	return fmt.Errorf("%s", usage)
}

// As process 1 of a pod that shares its process namespace, pause inherits
// orphans; ignoring SIGCHLD makes the kernel reap them.
func pause() {
	signal.Ignore(syscall.SIGCHLD)
	<-terminated().Done()
}

// Process 1 gets no default action for signals, so SIGTERM must be caught.
func terminated() context.Context {
	ctx, _ := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	return ctx
}

func serve(address, text string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	fmt.Println("listening on", listener.Addr())
	go http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, text)
	}))
	<-terminated().Done()
	return nil
}

func get(url string) error {
	client := http.Client{Timeout: 2 * time.Second}
	deadline := time.Now().Add(10 * time.Second)
	for {
		response, err := client.Get(url)
		if err == nil {
			defer response.Body.Close()
			_, err = io.Copy(os.Stdout, response.Body)
			return err
		}
		if time.Now().After(deadline) {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func lookup(name string) error {
	addresses, err := net.LookupHost(name)
	if err != nil {
		return err
	}
	fmt.Println(strings.Join(addresses, "\n"))
	return nil
}
