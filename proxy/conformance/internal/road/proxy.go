package road

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// patience is how long a proxy may take to be ready.
const patience = 20 * time.Second

// direction is the side of a pod's sidecar that a proxy plays.
type direction struct {
	name string
	// listener writes the listener's variable: where it listens, and what stands behind it.
	listener func(address, target string) string
}

var (
	outbound = direction{"outbound", func(address, _ string) string {
		return "FERRULE_OUTBOUND_LISTENERS=" + address + "=conformance/server:80"
	}}
	inbound = direction{"inbound", func(address, target string) string {
		return "FERRULE_INBOUND_LISTENERS=" + address + "=" + target
	}}
)

// proxy is a process of ferrule-proxy.
type proxy struct {
	direction direction
	address   string
	admin     string
	log       string
	process   *exec.Cmd
	ended     chan struct{}
}

func startProxy(ctx context.Context, program, directory string, direction direction, appProtocol, target string) (*proxy, error) {
	if err := writeWorld(directory, appProtocol, target); err != nil {
		return nil, err
	}
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	admin, err := freeAddress()
	if err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(directory, "proxy.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	process := exec.CommandContext(ctx, program)
	process.Env = append(os.Environ(),
		"FERRULE_DISCOVERY=dir:"+directory,
		"FERRULE_REDIRECTED=false",
		"FERRULE_ADMIN="+admin,
		"FERRULE_WORKERS=1",
		"FERRULE_DRAIN_SECONDS=1",
		direction.listener(address, target),
	)
	process.Stdout, process.Stderr = log, log
	if err := process.Start(); err != nil {
		return nil, err
	}
	proxy := &proxy{direction, address, admin, log.Name(), process, make(chan struct{})}
	go func() {
		// How it ended is in its log.
		_ = process.Wait()
		close(proxy.ended)
	}()
	if err := proxy.ready(ctx); err != nil {
		proxy.kill()
		return nil, err
	}
	return proxy, nil
}

func (proxy *proxy) ready(ctx context.Context) error {
	deadline := time.After(patience)
	for {
		_, err := proxy.ask("/ready")
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-proxy.ended:
			return fmt.Errorf("ended at once; its log: %s", proxy.log)
		case <-deadline:
			return fmt.Errorf("not ready within %v: %w; its log: %s", patience, err, proxy.log)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// ask gets a page of the admin port.
func (proxy *proxy) ask(path string) (string, error) {
	client := http.Client{Timeout: 5 * time.Second}
	response, err := client.Get("http://" + proxy.admin + path)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", path, response.Status)
	}
	return string(body), err
}

func (proxy *proxy) metrics() (samples, error) {
	text, err := proxy.ask("/metrics")
	return parseSamples(text), err
}

func (proxy *proxy) kill() {
	_ = proxy.process.Process.Kill()
	<-proxy.ended
}

// writeWorld writes a Service conformance/server whose port 80 leads to the target.
func writeWorld(directory, appProtocol, target string) error {
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return err
	}
	host, text, err := net.SplitHostPort(target)
	if err != nil {
		return err
	}
	number, err := strconv.Atoi(text)
	if err != nil {
		return err
	}
	type object = map[string]any
	port := object{"name": "main", "port": 80}
	if appProtocol != "" {
		port["appProtocol"] = appProtocol
	}
	service := object{
		"kind":     "Service",
		"metadata": object{"name": "server", "namespace": "conformance"},
		"spec":     object{"ports": []object{port}},
	}
	slice := object{
		"kind": "EndpointSlice",
		"metadata": object{
			"name": "server-1", "namespace": "conformance",
			"labels": object{"kubernetes.io/service-name": "server"},
		},
		"endpoints": []object{{"addresses": []string{host}}},
		"ports":     []object{{"name": "main", "port": number}},
	}
	for name, content := range map[string]object{"service.json": service, "slice.json": slice} {
		bytes, err := json.Marshal(content)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(directory, name), bytes, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// freeAddress is an address of this machine where nothing listens at the moment.
func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer listener.Close()
	return listener.Addr().String(), nil
}
