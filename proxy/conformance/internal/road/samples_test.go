package road

import (
	"maps"
	"testing"
)

const text = `# HELP ferrule_connections Connections accepted, by what they carry.
# TYPE ferrule_connections counter
ferrule_connections_total{direction="outbound",service="a/b",protocol="http2"} 3
ferrule_connections_total{direction="outbound",service="a/{c}",protocol="http2"} 4
ferrule_connections_total{direction="inbound",service="a \"d\"",protocol="tcp"} 1
ferrule_request_duration_seconds_sum{service="a"} 0.25
ferrule_watches 7
# EOF
`

func TestCountersAreSummedByLabel(t *testing.T) {
	got := parseSamples(text).by("ferrule_connections_total", "protocol")
	if want := map[string]int{"http2": 7, "tcp": 1}; !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestASampleNeedsNoLabels(t *testing.T) {
	samples := parseSamples(text)
	if got := samples.sum("ferrule_watches"); got != 7 {
		t.Errorf("got %d", got)
	}
	if got := samples.sum("ferrule_connections_total"); got != 8 {
		t.Errorf("got %d", got)
	}
}
