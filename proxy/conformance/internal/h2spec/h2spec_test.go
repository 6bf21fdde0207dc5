package h2spec

import (
	"slices"
	"testing"
)

const output = "Generic tests for HTTP/2 server\n" +
	"  1. Starting HTTP/2\n" +
	"      1: Sends a client connection preface\r    ✔ 1: Sends a client connection preface\n" +
	"\n" +
	"Hypertext Transfer Protocol Version 2 (HTTP/2)\n" +
	"  5. Streams and Multiplexing\n" +
	"    5.1. Stream States\n" +
	"      5.1.2. Stream Concurrency\n" +
	"          1: Sends too many\r        1: Sends too many\n" +
	"  8. HTTP Message Exchanges\n" +
	"    8.1.2.2. Connection-Specific Header Fields\n" +
	"        1: Sends a field\r      × 1: Sends a field\n" +
	"        -> The endpoint MUST respond.\n" +
	"           Expected: GOAWAY Frame\n" +
	"             Actual: DATA Frame\n" +
	"        2: Sends TE\r      ✔ 2: Sends TE\n" +
	"\n" +
	"Failures: \n\n" +
	"Hypertext Transfer Protocol Version 2 (HTTP/2)\n" +
	"  8. HTTP Message Exchanges\n" +
	"    8.1.2.2. Connection-Specific Header Fields\n" +
	"      × 1: Sends a field\n" +
	"        -> The endpoint MUST respond.\n" +
	"           Expected: GOAWAY Frame\n" +
	"             Actual: DATA Frame\n" +
	"\n" +
	"Finished in 1.0 seconds\n" +
	"4 tests, 2 passed, 1 skipped, 1 failed\n"

func TestFindingsAreReadWithTheirReasons(t *testing.T) {
	findings, err := parse(output)
	if err != nil {
		t.Fatal(err)
	}
	failures := []Failure{{
		Case: "http2 8.1.2.2/1 Sends a field",
		Why:  "-> The endpoint MUST respond. Expected: GOAWAY Frame Actual: DATA Frame",
	}}
	if !slices.Equal(findings.Failures, failures) {
		t.Errorf("failures: %q", findings.Failures)
	}
	if want := []string{"http2 5.1.2/1 Sends too many"}; !slices.Equal(findings.Skipped, want) {
		t.Errorf("skipped: %q", findings.Skipped)
	}
	if findings.Passed != 2 {
		t.Errorf("passed: %d", findings.Passed)
	}
}

func TestARunThatBreaksOffIsAnError(t *testing.T) {
	if _, err := parse("Generic tests for HTTP/2 server\n\nError: connection refused\n"); err == nil {
		t.Error("no error")
	}
}
