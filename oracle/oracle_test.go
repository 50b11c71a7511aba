package oracle

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// batchSize is how many cases Caddy serves at once.
const batchSize = 24

// A pair is the two runs of a case.
type pair struct{ with, without *run }

// check runs cases and reports what is wrong with each.
func check(t *testing.T, cases []*testcase) {
	t.Helper()
	began := time.Now()
	var chosen []*testcase
	for _, c := range cases {
		if selected(t, c.name) {
			chosen = append(chosen, c)
		}
	}
	var total, requests, silent, failed int
	for some := range slices.Chunk(chosen, batchSize) {
		batch := newBatch(some)
		if err := batch.run(); err != nil {
			t.Fatal(err)
		}
		for _, p := range batch {
			total++
			requests += len(p.with.visits) + len(p.without.visits)
			if !slices.ContainsFunc(p.without.visits, (*visit).hasStream) {
				silent++
			}
			test, faults := p.with.test, judge(p.with, p.without)
			for retries := 2; faults != nil && (p.without.isInconclusive() || p.without.wasReset() || p.with.wasReset()) && retries > 0; retries-- {
				again := newBatch([]*testcase{test})
				if err := again.run(); err != nil {
					t.Fatal(err)
				}
				p, faults = again[0], judge(again[0].with, again[0].without)
			}
			if faults != nil {
				failed++
			}
			t.Run(test.name, func(t *testing.T) {
				if faults == nil {
					return
				}
				if failed <= mostReduced {
					test, faults = reduce(t, test, faults)
				}
				t.Error(report(test, faults))
			})
		}
	}
	t.Logf("%d configurations, of which %d have no stream for anyone, and %d requests in %v: %d failed",
		total, silent, requests, time.Since(began).Round(time.Millisecond), failed)
}

// mostReduced is how many of the cases that fail are made smaller.
const mostReduced = 3

// reduce returns the smallest part of a case that still fails.
func reduce(t *testing.T, test *testcase, faults []*fault) (*testcase, []*fault) {
	t.Helper()
	for test.simpler != nil {
		batch := newBatch(test.simpler())
		if err := batch.run(); err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(batch, func(p pair) bool { return judge(p.with, p.without) != nil })
		if i < 0 {
			break
		}
		test, faults = batch[i].with.test, judge(batch[i].with, batch[i].without)
	}
	return test, faults
}

// mostShown is how many faults a message tells of.
const mostShown = 3

// report is the message of a case that has failed.
func report(test *testcase, faults []*fault) string {
	b := new(strings.Builder)
	fmt.Fprintf(b, "SHARE is %s or nothing.\n%s\n", strings.Join(strings.Fields(test.share()), " "), tidy(test.config))
	if test.after != "" {
		fmt.Fprintf(b, "\nreloaded as:\n%s\n", tidy(test.after))
	}
	for i, f := range faults {
		if i == mostShown {
			fmt.Fprintf(b, "\n... and %d more\n", len(faults)-i)
			break
		}
		fmt.Fprintf(b, "\n%s\n", f)
	}
	return b.String()
}

// A batch is the pairs that one configuration of Caddy holds.
type batch []pair

func newBatch(cases []*testcase) batch {
	var b batch
	for _, c := range cases {
		b = append(b, pair{newRun(c, c.share()), newRun(c, "")})
	}
	return b
}

// each calls f for all runs at once.
func (b batch) each(f func(*run)) {
	var wg sync.WaitGroup
	for _, p := range b {
		wg.Go(func() { f(p.with) })
		wg.Go(func() { f(p.without) })
	}
	wg.Wait()
}

// run plays the script of all pairs.
func (b batch) run() error {
	defer b.each((*run).close)
	if err := b.load(func(c *testcase) string { return c.config }); err != nil {
		return err
	}
	b.each((*run).play)
	if !slices.ContainsFunc(b, func(p pair) bool { return p.with.test.after != "" }) {
		return nil
	}
	if err := b.load((*testcase).reloaded); err != nil {
		return err
	}
	b.each((*run).playOn)
	return nil
}

// load makes Caddy serve the configurations that version picks.
func (b batch) load(version func(*testcase) string) error {
	m := newMerged()
	for i, p := range b {
		for variant, r := range map[string]*run{"with": p.with, "without": p.without} {
			caddyfile, err := r.render(version(r.test))
			if err != nil {
				return err
			}
			if err := m.add(fmt.Sprintf("%s_%d", variant, i), caddyfile); err != nil {
				return fmt.Errorf("case %q: %w\n%s", r.test.name, err, caddyfile)
			}
		}
	}
	return m.load()
}

// TestTable runs the cases that were written by hand.
func TestTable(t *testing.T) {
	check(t, slices.Concat(sites, inFront, behind))
}
