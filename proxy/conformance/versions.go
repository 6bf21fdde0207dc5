package main

import (
	"context"
	"debug/buildinfo"
	"fmt"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
)

// versions is a list of who talked to whom. The proxy's own version is left out: the table stands beside its code.
func versions(ctx context.Context, tools tools) string {
	var out strings.Builder
	if info, err := buildinfo.ReadFile(tools.h2spec); err == nil {
		fmt.Fprintf(&out, "- h2spec %s\n", info.Main.Version)
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, module := range info.Deps {
			switch module.Path {
			case "google.golang.org/grpc", "github.com/coder/websocket":
				fmt.Fprintf(&out, "- %s %s\n", module.Path, module.Version)
			}
		}
	}
	fmt.Fprintf(&out, "- net/http of Go %s\n", strings.TrimPrefix(runtime.Version(), "go"))
	if output, err := exec.CommandContext(ctx, tools.curl, "--version").Output(); err == nil {
		words := strings.Fields(string(output))
		fmt.Fprintf(&out, "- curl %s\n", words[1])
	}
	return out.String()
}
