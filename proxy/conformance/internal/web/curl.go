package web

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// withCurl are checks with a client of another make.
var withCurl = []plain{
	{"curl: GET", curlGet},
	{"curl: HEAD", curlHead},
	{"curl: POST with 100-continue, 256 KiB", curlUpload},
	{"curl: PUT without a length", curlChunked},
	{"curl: download of 4 MiB", curlDownload},
}

// curl1 are more of them, for HTTP/1: with HTTP/2 by prior knowledge curl before version 8 fails at a second request,
// whoever the server is.
var curl1 = []plain{
	{"curl: two requests on one connection", curlReuse},
}

func expectOutput(got, want string, err error) error {
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("%q instead of %q", short(got), short(want))
	}
	return nil
}

// shown is curl's name for the version.
func (target *Target) shown() string {
	if target.Client == HTTP2 {
		return "2"
	}
	return "1.1"
}

func curlGet(ctx context.Context, target *Target) error {
	got, err := target.curl(ctx, "--write-out", " %{http_code} %{http_version}", target.url("/a?b=c"))
	return expectOutput(got, "ok 200 "+target.shown(), err)
}

func curlHead(ctx context.Context, target *Target) error {
	got, err := target.curl(ctx, "--head", "--output", os.DevNull,
		"--write-out", "%{http_code} %header{content-length} %{size_download}", target.url("/sized?bytes=777"))
	return expectOutput(got, "200 777 0", err)
}

// temporary writes a file of this many bytes.
func temporary(size int) (path string, remove func(), err error) {
	directory, err := os.MkdirTemp("", "conformance-")
	if err != nil {
		return "", nil, err
	}
	remove = func() { os.RemoveAll(directory) }
	path = filepath.Join(directory, "body")
	if err := os.WriteFile(path, []byte(strings.Repeat("x", size)), 0o600); err != nil {
		remove()
		return "", nil, err
	}
	return path, remove, nil
}

func curlUpload(ctx context.Context, target *Target) error {
	path, remove, err := temporary(256 * 1024)
	if err != nil {
		return err
	}
	defer remove()
	// Without a 100 curl would wait for a minute.
	got, err := target.curl(ctx, "--header", "Expect: 100-continue", "--expect100-timeout", "60", "--max-time", "20",
		"--data-binary", "@"+path, "--output", os.DevNull, "--write-out", "%{http_code} %header{x-length}", target.url("/digest"))
	return expectOutput(got, "200 262144", err)
}

func curlChunked(ctx context.Context, target *Target) error {
	path, remove, err := temporary(100_000)
	if err != nil {
		return err
	}
	defer remove()
	arguments := []string{"--upload-file", path, "--output", os.DevNull, "--write-out", "%{http_code} %header{x-length}"}
	if target.Client == HTTP1 {
		arguments = append(arguments, "--header", "Transfer-Encoding: chunked")
	} else {
		arguments = append(arguments, "--header", "Content-Length:")
	}
	got, err := target.curl(ctx, append(arguments, target.url("/digest"))...)
	return expectOutput(got, "200 100000", err)
}

func curlReuse(ctx context.Context, target *Target) error {
	got, err := target.curl(ctx, "--write-out", " %{num_connects};", target.url("/1"), target.url("/2"))
	return expectOutput(got, "ok 1;ok 0;", err)
}

func curlDownload(ctx context.Context, target *Target) error {
	got, err := target.curl(ctx, "--output", os.DevNull, "--write-out", "%{size_download}", target.url(fmt.Sprintf("/sized?bytes=%d", 4<<20)))
	return expectOutput(got, fmt.Sprint(4<<20), err)
}
