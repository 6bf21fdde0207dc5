// Package road starts what stands between a client and a server: no proxy, one, or two.
package road

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Kind is the number and the direction of the proxies between client and server.
type Kind int

const (
	// Direct has no proxy: what fails here is a fault of the check.
	Direct Kind = iota
	// Outbound is one proxy on the client's side.
	Outbound
	// Inbound is one proxy on the server's side.
	Inbound
	// Both is the way between two pods: outbound, then inbound.
	Both
)

func (kind Kind) String() string {
	return [...]string{"no proxy", "outbound", "inbound", "outbound and inbound"}[kind]
}

// Plan says what a road is to be.
type Plan struct {
	Kind Kind
	// AppProtocol of the Service's port; empty: the outbound proxy detects the protocol.
	AppProtocol string
	// Server is the address where the road ends.
	Server string
}

// Starter knows how proxies are started.
type Starter struct {
	// Proxy is the path of the ferrule-proxy program.
	Proxy string
	// Directory takes discovery files and the proxies' logs.
	Directory string

	started int
}

// Road is a way to a server.
type Road struct {
	// Address is where the client connects.
	Address string

	proxies []*proxy
}

// Open starts the proxies of a road and waits until they are ready.
func (starter *Starter) Open(ctx context.Context, plan Plan) (*Road, error) {
	road := &Road{Address: plan.Server}
	starter.started++
	directory := filepath.Join(starter.Directory, fmt.Sprintf("%02d-%s", starter.started, slug(plan.Kind.String())))
	start := func(direction direction) error {
		proxy, err := startProxy(ctx, starter.Proxy, filepath.Join(directory, direction.name), direction, plan.AppProtocol, road.Address)
		if err != nil {
			road.Close()
			return fmt.Errorf("%s proxy: %w", direction.name, err)
		}
		road.proxies = append(road.proxies, proxy)
		road.Address = proxy.address
		return nil
	}
	if plan.Kind == Inbound || plan.Kind == Both {
		if err := start(inbound); err != nil {
			return nil, err
		}
	}
	if plan.Kind == Outbound || plan.Kind == Both {
		if err := start(outbound); err != nil {
			return nil, err
		}
	}
	return road, nil
}

// Close ends the proxies.
func (road *Road) Close() {
	for _, proxy := range road.proxies {
		proxy.kill()
	}
}

// Carried is what the proxies of a road must have counted.
type Carried struct {
	// Protocols are the connections that each proxy must have seen at least one of; keyed by direction.
	Protocols map[string]string
	// Opaque is the number of connections that may have been carried as bytes.
	Opaque int
	// Requests each proxy must at least have counted.
	Requests int
}

// Everywhere asks for the same protocol in each proxy.
func Everywhere(protocol string) map[string]string {
	return map[string]string{outbound.name: protocol, inbound.name: protocol}
}

// Crossing asks for one protocol at the client's side and another one at the server's.
func Crossing(client, server string) map[string]string {
	return map[string]string{outbound.name: client, inbound.name: server}
}

// Check compares what the proxies counted with what they must have carried: a road that passes bytes through
// without looking at them would pass every other check.
func (road *Road) Check(want Carried) error {
	deadline := time.Now().Add(settle)
	for {
		var errs []error
		for _, proxy := range road.proxies {
			if err := proxy.check(want); err != nil {
				errs = append(errs, fmt.Errorf("%s proxy: %w", proxy.direction.name, err))
			}
		}
		if len(errs) == 0 || time.Now().After(deadline) {
			return errors.Join(errs...)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// settle is how long after the last case requests may come to their ends, which is when they are counted.
const settle = 2 * time.Second

func (proxy *proxy) check(want Carried) error {
	metrics, err := proxy.metrics()
	if err != nil {
		return fmt.Errorf("no metrics: %w", err)
	}
	protocol := want.Protocols[proxy.direction.name]
	counted := metrics.by("ferrule_connections_total", "protocol")
	if counted[protocol] == 0 {
		return fmt.Errorf("no connection was carried as %s; connections by protocol: %v", protocol, counted)
	}
	if opaque := counted["tcp"] + counted["passthrough"]; opaque > want.Opaque {
		return fmt.Errorf("%d connections were carried as bytes, at most %d may be: %v", opaque, want.Opaque, counted)
	}
	if requests := metrics.sum("ferrule_requests_total"); requests < want.Requests {
		return fmt.Errorf("%d requests were counted, there were at least %d", requests, want.Requests)
	}
	return nil
}

// Health tells whether the proxies still run and none of their threads has panicked.
func (road *Road) Health() error {
	var errs []error
	for _, proxy := range road.proxies {
		if err := proxy.health(); err != nil {
			errs = append(errs, fmt.Errorf("%s proxy: %w", proxy.direction.name, err))
		}
	}
	return errors.Join(errs...)
}

func (proxy *proxy) health() error {
	select {
	case <-proxy.ended:
		return fmt.Errorf("ended by itself; its log: %s", proxy.log)
	default:
	}
	log, err := os.ReadFile(proxy.log)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(log)) {
		if strings.Contains(line, "panicked") {
			return fmt.Errorf("%s (log: %s)", strings.TrimSpace(line), proxy.log)
		}
	}
	if _, err := proxy.ask("/live"); err != nil {
		return fmt.Errorf("does not answer any more: %w", err)
	}
	return nil
}

func slug(text string) string {
	return strings.ReplaceAll(text, " ", "-")
}
