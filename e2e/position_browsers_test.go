package e2e

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
)

// A page whose connection breaks before its first event misses nothing: it was told its
// position. Firefox takes one from nothing but an event.
func TestBrowsersResumeBeforeTheirFirstEvent(t *testing.T) {
	dir := installed(t, "testdata/clients")
	origin := &ledgerOrigin{wake: make(chan struct{})}
	caddy := runCaddy(t, "", bothForms(inGo(t, origin).addr, quietOptions, "hello"))
	origin.publish()

	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer func() {
		cancel()
		running.Wait()
	}()
	join := func(l library, form string, last int) *app {
		a := &app{library: l, form: form, tap: newTap(t, strings.TrimPrefix(caddy.http, "http://")), last: last}
		running.Go(func() { a.run(ctx, target{url: "http://" + a.tap.addr + "/" + form}) })
		return a
	}
	forms := []string{"endpoint", "wrapping"}

	// They keep the topics, and make the logs come to an id.
	var keepers []*app
	for _, form := range forms {
		keepers = append(keepers, join(library{name: "keeper", follow: followHTTPX}, form, 2))
	}
	await(t, keepers, "connected", func(a *app) bool { return a.tap.heartbeats() > 0 })
	newest := origin.publish()
	at := func(newest int) func(*app) bool {
		return func(a *app) bool {
			last, _ := a.at()
			return last == newest
		}
	}
	await(t, keepers, "kept", at(newest))

	var pages []*app
	for _, l := range nodeLibraries {
		if l.browser == nil {
			continue
		}
		s := runScript(t, dir, l.name, program(t, l.browser[0], l.browser...))
		s.awaitReady(t)
		l.follow = s.follow
		for _, form := range forms {
			pages = append(pages, join(l, form, newest))
		}
	}
	await(t, pages, "told a position", func(a *app) bool {
		return a.tap.count(fmt.Sprintf("id: %d\n", newest)) > 0 && a.tap.heartbeats() > 0
	})
	for _, a := range pages {
		a.tap.cut()
	}
	newest = origin.publish()
	await(t, append(pages, keepers...), "at the newest event", at(newest))
	for _, a := range append(pages, keepers...) {
		if _, err := a.at(); err != nil {
			t.Errorf("%v: %v; it was sent %q", a, err, a.tap.bodies())
		}
	}
}
