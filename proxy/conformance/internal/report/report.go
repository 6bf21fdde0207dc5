// Package report collects the results of cases and writes them as a table.
package report

import (
	"fmt"
	"slices"
	"strings"
)

// Result is what became of one case, or of several of one kind.
type Result struct {
	// Suite is the row of the table.
	Suite string
	// Road is what the messages went through, another part of the row.
	Road string
	// Case is named where it failed or was skipped.
	Case string
	// Count of cases that this result stands for.
	Count int
	// Err tells why it failed; nil: it passed.
	Err error
	// Skipped tells why it did not run.
	Skipped string
}

// Report is the results in their order.
type Report struct {
	results []Result
	// Announce is told of each result at once.
	Announce func(Result)
}

// Add takes a result in.
func (report *Report) Add(result Result) {
	if result.Count == 0 {
		result.Count = 1
	}
	report.results = append(report.results, result)
	if report.Announce != nil {
		report.Announce(result)
	}
}

// Failed counts the cases that failed.
func (report *Report) Failed() int {
	failed := 0
	for _, row := range report.rows() {
		failed += row.failed
	}
	return failed
}

type row struct {
	suite, road             string
	passed, failed, skipped int
}

func (report *Report) rows() []row {
	var rows []row
	for _, result := range report.results {
		at := slices.IndexFunc(rows, func(row row) bool { return row.suite == result.Suite && row.road == result.Road })
		if at < 0 {
			at = len(rows)
			rows = append(rows, row{suite: result.Suite, road: result.Road})
		}
		switch {
		case result.Err != nil:
			rows[at].failed += result.Count
		case result.Skipped != "":
			rows[at].skipped += result.Count
		default:
			rows[at].passed += result.Count
		}
	}
	return rows
}

// Table is the results in Markdown: a row a suite and road, then what failed and what was skipped.
func (report *Report) Table() string {
	var out strings.Builder
	rows := report.rows()
	suites, roads := len("suite"), len("through")
	for _, row := range rows {
		suites, roads = max(suites, len([]rune(row.suite))), max(roads, len([]rune(row.road)))
	}
	line := func(suite, road, passed, failed, skipped string) {
		fmt.Fprintf(&out, "| %-*s | %-*s | %6s | %6s | %7s |\n", suites, suite, roads, road, passed, failed, skipped)
	}
	line("suite", "through", "passed", "failed", "skipped")
	fmt.Fprintf(&out, "|-%s-|-%s-|-------:|-------:|--------:|\n", strings.Repeat("-", suites), strings.Repeat("-", roads))
	var total row
	for _, row := range rows {
		line(row.suite, row.road, fmt.Sprint(row.passed), fmt.Sprint(row.failed), fmt.Sprint(row.skipped))
		total.passed, total.failed, total.skipped = total.passed+row.passed, total.failed+row.failed, total.skipped+row.skipped
	}
	line("**all**", "", fmt.Sprint(total.passed), fmt.Sprint(total.failed), fmt.Sprint(total.skipped))
	report.list(&out, "Failed", func(result Result) string {
		if result.Err == nil {
			return ""
		}
		return result.Err.Error()
	})
	report.list(&out, "Skipped", func(result Result) string { return result.Skipped })
	return out.String()
}

// mostListed is how many results of a row are listed one by one, and mostTold how much of a reason is: a row that fails
// as a whole is told by its first cases.
const (
	mostListed = 10
	mostTold   = 400
)

func (report *Report) list(out *strings.Builder, title string, why func(Result) string) {
	listed := map[row]int{}
	for _, result := range report.results {
		reason := why(result)
		if reason == "" {
			continue
		}
		if len(listed) == 0 {
			fmt.Fprintf(out, "\n## %s\n", title)
		}
		row := row{suite: result.Suite, road: result.Road}
		listed[row]++
		switch {
		case listed[row] <= mostListed:
			fmt.Fprintf(out, "- %s, %s, %s: %s\n", result.Suite, result.Road, result.Case, Short(reason))
		case listed[row] == mostListed+1:
			fmt.Fprintf(out, "- %s, %s: and more\n", result.Suite, result.Road)
		}
	}
}

// Short is a reason in one line of bounded length.
func Short(reason string) string {
	text := []rune(strings.Join(strings.Fields(reason), " "))
	if len(text) > mostTold {
		return string(text[:mostTold]) + "…"
	}
	return string(text)
}
