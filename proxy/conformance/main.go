// Conformance asks the proxy, with the tools of others, whether it keeps to the protocols: h2spec, the gRPC project's
// interoperability cases, a standard WebSocket client and server, Go's HTTP client and curl. run.sh builds what it needs.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"syscall"

	"ferrule/proxy/conformance/internal/report"
	"ferrule/proxy/conformance/internal/road"
)

// tools are the programs that are run.
type tools struct {
	proxy, h2spec, client, server, curl string
}

// session is one run of the suites.
type session struct {
	ctx     context.Context
	tools   tools
	only    *regexp.Regexp
	starter road.Starter
	report  report.Report
}

func main() {
	passed, err := run()
	if err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
	}
	if err != nil || !passed {
		os.Exit(1)
	}
}

func run() (bool, error) {
	var tools tools
	flag.StringVar(&tools.proxy, "proxy", "", "ferrule-proxy")
	flag.StringVar(&tools.h2spec, "h2spec", "", "h2spec")
	flag.StringVar(&tools.client, "grpc-client", "", "grpc-go's interop client")
	flag.StringVar(&tools.server, "grpc-server", "", "grpc-go's interop server")
	flag.StringVar(&tools.curl, "curl", "curl", "curl")
	directory := flag.String("directory", "", "where the proxies' files and logs go")
	results := flag.String("results", "", "file that the table is written to; nothing is written when -only is given")
	only := flag.String("only", "", "run only the suites and roads that this regular expression matches")
	flag.Parse()

	filter, err := regexp.Compile(*only)
	if err != nil {
		return false, fmt.Errorf("-only: %w", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	this := session{ctx: ctx, tools: tools, only: filter, starter: road.Starter{Proxy: tools.proxy, Directory: *directory}}
	this.report.Announce = announce
	for _, suite := range []func(*session) error{h2specSuite, grpcSuite, websocketSuite, webSuite} {
		if err := suite(&this); err != nil {
			return false, err
		}
	}
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	table := this.report.Table()
	fmt.Print("\n", table)
	if *results != "" && *only == "" {
		text := title + "\n" + versions(ctx, tools) + "\n" + table
		if err := os.WriteFile(*results, []byte(text), 0o644); err != nil {
			return false, err
		}
	}
	return this.report.Failed() == 0, nil
}

const title = `# Results of ` + "`make conformance`" + `

Written by the run itself. What the rows mean and what is left out: [README.md](README.md).
`

// announce tells what did not pass at once.
func announce(result report.Result) {
	switch {
	case result.Err != nil:
		fmt.Printf("FAILED   %s, %s, %s: %s\n", result.Suite, result.Road, result.Case, report.Short(result.Err.Error()))
	case result.Skipped != "":
		fmt.Printf("skipped  %s, %s, %s: %s\n", result.Suite, result.Road, result.Case, result.Skipped)
	}
}

// row is a suite on a road.
type row struct {
	suite string
	plan  road.Plan
	// carried is what the proxies' counters must show at the end.
	carried func() road.Carried
}

func (row row) through() string {
	name := row.plan.Kind.String()
	if row.plan.AppProtocol != "" {
		name += ", appProtocol " + row.plan.AppProtocol
	}
	return name
}

// run opens the road, runs the cases, and then sees whether the proxies took part and are alive.
func (session *session) run(row row, cases func(address string, add func(name string, err error))) error {
	through := row.through()
	if !session.only.MatchString(row.suite+", "+through) || session.ctx.Err() != nil {
		return nil
	}
	fmt.Printf("running  %s, %s\n", row.suite, through)
	way, err := session.starter.Open(session.ctx, row.plan)
	if err != nil {
		return err
	}
	defer way.Close()
	add := func(name string, err error) {
		session.report.Add(report.Result{Suite: row.suite, Road: through, Case: name, Err: err})
	}
	cases(way.Address, add)
	if way.Address != row.plan.Server {
		add("the proxies' counters show what was carried", way.Check(row.carried()))
		add("the proxies are alive and no thread has panicked", way.Health())
	}
	return nil
}
