// Package h2spec runs h2spec, every section of it with the strict cases, and reads its findings.
package h2spec

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
)

// Findings of one run.
type Findings struct {
	Passed   int
	Failures []Failure
	Skipped  []string
}

// Failure is a case that failed.
type Failure struct {
	Case string
	Why  string
}

var (
	summary = regexp.MustCompile(`^(\d+) tests, (\d+) passed, (\d+) skipped, (\d+) failed$`)
	root    = regexp.MustCompile(`^(Generic|Hypertext|HPACK)\b.*$`)
	section = regexp.MustCompile(`^(\d+(?:\.\d+)*)\. \S`)
	verdict = regexp.MustCompile(`^([✔×]?) ?(\d+): (.+)$`)
)

// chapters are h2spec's own short names.
var chapters = map[string]string{"Generic": "generic", "Hypertext": "http2", "HPACK": "hpack"}

// path whose body is long enough for the cases on flow control, which are skipped otherwise.
const path = "/sized?bytes=1000"

// Run lets h2spec talk to the address.
func Run(ctx context.Context, program, address string) (Findings, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return Findings{}, err
	}
	command := exec.CommandContext(ctx, program, "--strict", "--host", host, "--port", port, "--path", path, "--timeout", "3")
	output, err := command.CombinedOutput()
	var exit *exec.ExitError
	// Its status is 1 when a case failed; the output says which.
	if err != nil && !errors.As(err, &exit) {
		return Findings{}, err
	}
	findings, err := parse(string(output))
	if err != nil {
		return findings, fmt.Errorf("%w; it said: %s", err, last(string(output), 500))
	}
	return findings, nil
}

// parse reads what h2spec prints for people, the only form in which it tells everything: each case's number and
// title while it runs and again with its verdict, then the failures once more with their reasons, then the counts.
func parse(output string) (Findings, error) {
	var findings Findings
	var chapter, heading, running string
	var counts []string
	inFailures := false
	for line := range strings.Lines(strings.ReplaceAll(output, "\r", "\n")) {
		line = strings.TrimSpace(line)
		if line == "Failures:" {
			inFailures = true
		} else if found := summary.FindStringSubmatch(line); found != nil {
			counts = found
		} else if found := root.FindStringSubmatch(line); found != nil {
			chapter, heading = chapters[found[1]], ""
		} else if found := section.FindStringSubmatch(line); found != nil {
			heading = found[1]
		} else if found := verdict.FindStringSubmatch(line); found != nil {
			name := fmt.Sprintf("%s %s/%s %s", chapter, heading, found[2], found[3])
			switch {
			case inFailures:
				findings.Failures = append(findings.Failures, Failure{Case: name})
			case found[1] == "" && name == running:
				findings.Skipped = append(findings.Skipped, name)
				running = ""
			default:
				running = name
			}
		} else if inFailures && counts == nil && line != "" && !strings.HasPrefix(line, "Finished in") {
			if last := len(findings.Failures) - 1; last >= 0 {
				findings.Failures[last].Why = strings.TrimSpace(findings.Failures[last].Why + " " + line)
			}
		}
	}
	if counts == nil {
		return findings, errors.New("h2spec did not come to its end")
	}
	var numbers [3]int
	for index := range numbers {
		numbers[index], _ = strconv.Atoi(counts[index+2])
	}
	findings.Passed = numbers[0]
	if numbers[1] != len(findings.Skipped) || numbers[2] != len(findings.Failures) {
		return findings, fmt.Errorf("h2spec counts %d skipped and %d failed, but names %d and %d",
			numbers[1], numbers[2], len(findings.Skipped), len(findings.Failures))
	}
	return findings, nil
}

func last(text string, length int) string {
	return text[max(0, len(text)-length):]
}
