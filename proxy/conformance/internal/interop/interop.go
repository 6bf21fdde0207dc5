// Package interop runs the gRPC project's own interoperability cases, with its own client and server programs.
package interop

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// Case is one of the client's test cases.
type Case struct {
	Name string
	// Arguments that the case needs besides its name.
	Arguments []string
}

const orcaBalancer = `--service_config_json={"loadBalancingConfig":[{"test_backend_metrics_load_balancer":{}}]}`

// A round may take as long as all of them: how fast they are is not asked here, and machines are busy.
var soak = []string{
	"--soak_iterations=100", "--soak_num_threads=4", "--soak_overall_timeout_seconds=60",
	"--soak_per_iteration_max_acceptable_latency_ms=60000",
}

// Cases are all that grpc-go's client has and that need neither TLS nor credentials of a cloud.
var Cases = []Case{
	{Name: "empty_unary"},
	{Name: "large_unary"},
	{Name: "client_streaming"},
	{Name: "server_streaming"},
	{Name: "ping_pong"},
	{Name: "empty_stream"},
	{Name: "timeout_on_sleeping_server"},
	{Name: "cancel_after_begin"},
	{Name: "cancel_after_first_response"},
	{Name: "custom_metadata"},
	{Name: "status_code_and_message"},
	{Name: "special_status_message"},
	{Name: "unimplemented_method"},
	{Name: "unimplemented_service"},
	{Name: "rpc_soak", Arguments: soak},
	{Name: "channel_soak", Arguments: soak},
	{Name: "orca_per_rpc", Arguments: []string{orcaBalancer}},
	{Name: "orca_oob", Arguments: []string{orcaBalancer}},
}

// caseLimit is how long a case may take: soaks of 100 rounds take well below a second on an idle machine.
const caseLimit = 90 * time.Second

// Run lets the client do one case at the address.
func Run(ctx context.Context, client, address string, test Case) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, caseLimit)
	defer cancel()
	arguments := append([]string{"--server_host", host, "--server_port", port, "--test_case", test.Name}, test.Arguments...)
	output, err := exec.CommandContext(ctx, client, arguments...).CombinedOutput()
	if ctx.Err() != nil {
		return fmt.Errorf("not done within %v: %s", caseLimit, lastLines(output))
	}
	if err != nil {
		return fmt.Errorf("%w: %s", err, lastLines(output))
	}
	return nil
}

// lastLines holds the failure and, of a soak, the first rounds that failed and its last ones.
func lastLines(output []byte) string {
	lines := strings.Split(strings.TrimSpace(string(output)), "\n")
	last := max(0, len(lines)-3)
	var told []string
	for _, line := range lines[:last] {
		if len(told) < 5 && strings.Contains(line, "soak iteration") && !strings.Contains(line, "succeeded") {
			told = append(told, line)
		}
	}
	return strings.Join(append(told, lines[last:]...), " / ")
}

// Server is a running interop server.
type Server struct {
	Address string
	process *exec.Cmd
}

// StartServer starts the server program and waits until it takes connections.
func StartServer(ctx context.Context, program string) (*Server, error) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	port := free.Addr().(*net.TCPAddr).Port
	free.Close()
	process := exec.CommandContext(ctx, program, "--port", strconv.Itoa(port))
	if err := process.Start(); err != nil {
		return nil, err
	}
	server := &Server{Address: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), process: process}
	for range 500 {
		connection, err := net.Dial("tcp", server.Address)
		if err == nil {
			connection.Close()
			return server, nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	server.Stop()
	return nil, fmt.Errorf("the interop server does not listen at %s", server.Address)
}

// Stop ends the server.
func (server *Server) Stop() {
	_ = server.process.Process.Kill()
	_ = server.process.Wait()
}
