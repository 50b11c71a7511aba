package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// A tab is an open page.
type tab struct {
	ctx context.Context
	page
}

// A page is what its script has seen, and what a person would see.
type page struct {
	Protocol   string `json:"protocol"`
	ReadyState int    `json:"readyState"`
	Opens      int    `json:"opens"`
	Errors     int    `json:"errors"`
	IDs        []int  `json:"ids"`
	State      string `json:"state"`
	Items      int    `json:"items"`
}

func (tb *tab) look() (err error) {
	ctx, cancel := context.WithTimeout(tb.ctx, 10*time.Second)
	defer cancel()
	tb.page, err = chromedp.Run(ctx, chromedp.Evaluate[page](`({
		...seen,
		readyState: source.readyState,
		protocol: performance.getEntriesByType('navigation')[0].nextHopProtocol,
		state: document.getElementById('state').textContent,
		items: document.getElementById('events').childElementCount,
	})`))
	return err
}

// unharmed says whether the tab has been connected all the time and has missed nothing.
func (tb *tab) unharmed() error {
	if tb.State != "open" || tb.ReadyState != 1 || tb.Opens != 1 || tb.Errors != 0 {
		return fmt.Errorf("the page shows %q, readyState %d, %d opens, %d errors; want one open and no more",
			tb.State, tb.ReadyState, tb.Opens, tb.Errors)
	}
	for i, id := range tb.IDs {
		if want := tb.IDs[0] + i; id != want {
			return fmt.Errorf("the page has event %d where %d was due", id, want)
		}
	}
	if tb.Items != len(tb.IDs) {
		return fmt.Errorf("the page lists %d events of %d", tb.Items, len(tb.IDs))
	}
	return nil
}

func (tb *tab) newest() int {
	if len(tb.IDs) == 0 {
		return 0
	}
	return tb.IDs[len(tb.IDs)-1]
}

// openTabs opens a page in n tabs of one browser. Every perProfile tabs are a
// profile of their own, since a browser allows six HTTP/1.1 connections to a
// host, and counts them by profile.
func openTabs(t *testing.T, url string, n, perProfile int) []*tab {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(program(t, "chromium", "chromium", "chromium-browser", "google-chrome")),
		chromedp.NoSandbox,
		chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("ignore-certificate-errors", true),
	)
	allocator, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	browser, cancel := chromedp.NewContext(allocator)
	t.Cleanup(cancel)
	if err := chromedp.Do(browser); err != nil {
		t.Fatalf("starting the browser: %v", err)
	}

	tabs := make([]*tab, n)
	var profile context.Context
	for i := range tabs {
		var ctx context.Context
		if i%perProfile == 0 {
			ctx, cancel = chromedp.NewContext(browser, chromedp.WithNewBrowserContext())
			profile = ctx
		} else {
			ctx, cancel = chromedp.NewContext(profile)
		}
		t.Cleanup(cancel)
		// The first use of a context makes its tab.
		if err := chromedp.Do(ctx); err != nil {
			t.Fatalf("opening a tab: %v", err)
		}
		tabs[i] = &tab{ctx: ctx}
	}
	var loading sync.WaitGroup
	for _, tb := range tabs {
		loading.Go(func() {
			if err := chromedp.Do(tb.ctx, chromedp.Navigate(url)); err != nil {
				t.Errorf("loading the page: %v", err)
			}
		})
	}
	loading.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return tabs
}

// awaitAll polls every tab until the condition holds for it.
func awaitAll(t *testing.T, tabs []*tab, within time.Duration, condition func(*tab) error) {
	t.Helper()
	deadline := time.Now().Add(within)
	for i, tb := range tabs {
		eventually(t, time.Until(deadline), func() error {
			if err := tb.look(); err != nil {
				return fmt.Errorf("tab %d: %w", i, err)
			}
			if err := condition(tb); err != nil {
				return fmt.Errorf("tab %d: %w", i, err)
			}
			return nil
		})
	}
}

// Ten tabs show a stream; its origin is killed and comes back two seconds
// later. The pages notice nothing, and in the end have every event, those that
// happened in between included.
func TestBrowserTabsOutliveTheOrigin(t *testing.T) {
	const tabs = 10
	pages, err := filepath.Abs("testdata/browser")
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name       string
		origin     func(*testing.T) *origin
		url        func(*caddy) string
		protocol   string
		perProfile int
	}{
		{"HTTP/1.1, Flask", flask, func(c *caddy) string { return c.http }, "http/1.1", 5},
		{"HTTP/2, Node", node, func(c *caddy) string { return c.https }, "h2", tabs},
	} {
		t.Run(tc.name, func(t *testing.T) {
			origin := tc.origin(t)
			conns := countConnections(t, origin.addr)
			caddy := runCaddy(t, "", fmt.Sprintf(`HTTP, HTTPS {
	handle /events {
		sse_fanout %s
	}
	handle {
		root %s
		header Cache-Control no-store # what comes from a cache has no protocol
		file_server
	}
}`, conns.addr, pages))

			tabs := openTabs(t, tc.url(caddy), tabs, tc.perProfile)
			awaitAll(t, tabs, 30*time.Second, func(tb *tab) error {
				if len(tb.IDs) < 10 {
					return fmt.Errorf("the page has %d events", len(tb.IDs))
				}
				return nil
			})
			for i, tb := range tabs {
				if tb.Protocol != tc.protocol {
					t.Fatalf("tab %d speaks %q, want %q", i, tb.Protocol, tc.protocol)
				}
				if err := tb.unharmed(); err != nil {
					t.Fatalf("tab %d: %v", i, err)
				}
			}
			if now, most, total := conns.count(); now != 1 || most != 1 || total != 1 {
				t.Errorf("the origin has %d connections, had %d at most, %d in all; want one", now, most, total)
			}

			origin.kill()
			time.Sleep(2 * time.Second) // how long a restart takes, not a wait for something
			origin.restart(t)
			restarted := now()

			awaitAll(t, tabs, 45*time.Second, func(tb *tab) error {
				if tb.newest() < restarted+20 {
					return fmt.Errorf("the newest event on the page is %d, want %d", tb.newest(), restarted+20)
				}
				return nil
			})
			for i, tb := range tabs {
				if err := tb.unharmed(); err != nil {
					t.Errorf("tab %d: %v", i, err)
				}
			}
			if now, most, _ := conns.count(); now != 1 || most != 1 {
				t.Errorf("the origin has %d connections, had %d at most; want one", now, most)
			}
		})
	}
}
