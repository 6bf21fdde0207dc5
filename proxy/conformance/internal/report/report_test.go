package report

import (
	"errors"
	"strings"
	"testing"
)

func TestResultsAreCountedByRow(t *testing.T) {
	var report Report
	report.Add(Result{Suite: "a", Road: "one", Case: "x"})
	report.Add(Result{Suite: "a", Road: "one", Case: "y", Err: errors.New("broke\n  badly")})
	report.Add(Result{Suite: "a", Road: "two", Count: 7})
	report.Add(Result{Suite: "b", Road: "one", Case: "z", Skipped: "no need"})

	if got := report.Failed(); got != 1 {
		t.Errorf("%d failed", got)
	}
	table := strings.Join(strings.Fields(report.Table()), " ")
	for _, want := range []string{
		"| a | one | 1 | 1 | 0 |",
		"| a | two | 7 | 0 | 0 |",
		"| b | one | 0 | 0 | 1 |",
		"| **all** | | 8 | 1 | 1 |",
		"## Failed - a, one, y: broke badly",
		"## Skipped - b, one, z: no need",
	} {
		if !strings.Contains(table, want) {
			t.Errorf("%q is missing in %s", want, table)
		}
	}
}

func TestARowThatFailsAsAWholeIsToldByItsFirstCases(t *testing.T) {
	var report Report
	for range 50 {
		report.Add(Result{Suite: "a", Road: "one", Case: "x", Err: errors.New(strings.Repeat("why ", 500))})
	}
	table := report.Table()
	if count := strings.Count(table, "- a, one, x:"); count != mostListed {
		t.Errorf("%d are listed", count)
	}
	if !strings.Contains(table, "- a, one: and more") || len(table) > mostListed*(mostTold+50)+1000 {
		t.Errorf("the table has %d bytes: %s", len(table), table)
	}
}
