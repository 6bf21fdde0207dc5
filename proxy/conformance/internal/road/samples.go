package road

import (
	"regexp"
	"strconv"
	"strings"
)

// sample is a line of Prometheus' text format.
type sample struct {
	name   string
	labels map[string]string
	value  int
}

type samples []sample

var label = regexp.MustCompile(`([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"`)

// parseSamples reads the samples whose values are whole numbers, which all counters are.
func parseSamples(text string) samples {
	var found samples
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		at := strings.LastIndexByte(line, ' ')
		if at < 0 || strings.HasPrefix(line, "#") {
			continue
		}
		value, err := strconv.Atoi(line[at+1:])
		if err != nil {
			continue
		}
		name, rest, _ := strings.Cut(line[:at], "{")
		labels := map[string]string{}
		for _, match := range label.FindAllStringSubmatch(rest, -1) {
			labels[match[1]] = match[2]
		}
		found = append(found, sample{name, labels, value})
	}
	return found
}

// by sums a metric for each value of a label.
func (samples samples) by(name, label string) map[string]int {
	sums := map[string]int{}
	for _, sample := range samples {
		if sample.name == name {
			sums[sample.labels[label]] += sample.value
		}
	}
	return sums
}

// sum is a metric over all its labels.
func (samples samples) sum(name string) int {
	total := 0
	for _, count := range samples.by(name, "") {
		total += count
	}
	return total
}
