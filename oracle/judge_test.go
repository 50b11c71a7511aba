package oracle

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
)

// meet connects the clients one after the other. After each, the origins tick, and
// all streams so far must have got it before the next one comes.
func (v *variant) meet(clients []*client, tick *int, who []identity) []*client {
	for _, id := range who {
		clients = append(clients, connect(v.url, id))
		v.tick(clients, tick)
	}
	return clients
}

func (v *variant) tick(clients []*client, tick *int) {
	*tick++
	v.pub.tick(*tick)
	v.priv.tick(*tick)
	var wg sync.WaitGroup
	for _, c := range clients {
		if c.isStream() {
			wg.Go(func() { c.await(*tick) })
		}
	}
	wg.Wait()
}

func (t *template) who() []identity {
	if len(t.clients) > 0 {
		return t.clients
	}
	return identities
}

// judge runs templates with the line and without, and compares.
func judge(t *testing.T, templates []template) {
	t.Helper()
	files := newDirectory(t)
	var pairs [][2]*variant
	var all []*variant
	for i := range templates {
		pair := [2]*variant{templates[i].run(t, false, i, files), templates[i].run(t, true, i, files)}
		pairs = append(pairs, pair)
		all = append(all, pair[:]...)
	}
	load(t, all, func(v *variant) string { return v.sites }, "the first configuration")
	t.Cleanup(stop)
	defer func() {
		for _, v := range all {
			for _, c := range slices.Concat(v.clients, v.probes) {
				c.cancel()
			}
		}
	}()

	ticks := make([]int, len(pairs))
	each(pairs, func(i int, without, with *variant) {
		for _, v := range []*variant{without, with} {
			n := 0
			v.clients = v.meet(nil, &n, v.who())
			ticks[i] = n
		}
		compare(t, without, with, 1, ticks[i])
	})

	reloaded := slices.ContainsFunc(templates, func(t template) bool { return t.after != "" })
	if !reloaded {
		return
	}
	load(t, all, func(v *variant) string {
		if v.after != "" {
			return v.after
		}
		return v.sites
	}, "the second configuration")
	each(pairs, func(i int, without, with *variant) {
		if without.after != "" {
			judgeReload(t, without, with, ticks[i])
		}
	})
}

// each calls f for a few pairs at a time.
func each(pairs [][2]*variant, f func(i int, without, with *variant)) {
	var wg sync.WaitGroup
	places := make(chan struct{}, 8)
	for i, pair := range pairs {
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			f(i, pair[0], pair[1])
		})
	}
	wg.Wait()
}

// compare checks that each client has got with the line what it has got without.
func compare(t *testing.T, without, with *variant, from, to int) {
	t.Helper()
	for i, c := range with.clients {
		want := without.clients[i]
		if got, want := c.answer(), want.answer(); got != want {
			with.complain(t, c, "is answered with %s,\nwithout the line with %s", got, want)
			continue
		}
		if !c.isStream() {
			continue
		}
		if got, want := c.ticks(from, to), want.ticks(from, to); !slices.Equal(got, want) {
			with.complain(t, c, "gets\n\t%s\nwithout the line\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
		}
	}
	if n := with.pub.connections() + with.priv.connections(); with.connections > 0 && n != with.connections {
		t.Errorf("%s: there were %d connections to the origins, want %d\n%s", with.name, n, with.connections, with.caddyfile(with.sites))
	}
}

func (v *variant) complain(t *testing.T, c *client, format string, args ...any) {
	t.Helper()
	t.Errorf("%s: the client %s %s\n%s", v.name, c.name, fmt.Sprintf(format, args...), v.caddyfile(v.sites))
}

// judgeReload checks what clients get after a reload. Those that come then get what
// they would get without the line. Those that were there get nothing that neither
// their old stream nor their own new request would bring; if they are ended, they
// come back and are as those that come then.
func judgeReload(t *testing.T, without, with *variant, before int) {
	t.Helper()
	n, m := before, before
	without.probes = without.meet(nil, &n, without.who())
	with.probes = with.meet(nil, &m, with.who())
	for i, c := range with.probes {
		want := without.probes[i]
		if got, want := c.answer(), want.answer(); got != want {
			with.complain(t, c, "is answered after the reload with %s,\nwithout the line with %s\nThe second configuration:\n%s",
				got, want, with.caddyfile(with.after))
			continue
		}
		if got, want := c.ticks(before+1, n), want.ticks(before+1, n); c.isStream() && !slices.Equal(got, want) {
			with.complain(t, c, "gets after the reload\n\t%s\nwithout the line\n\t%s\nThe second configuration:\n%s",
				strings.Join(got, "\n\t"), strings.Join(want, "\n\t"), with.caddyfile(with.after))
		}
	}
	for i, c := range with.clients {
		allowed := append(fingerprints(without.clients[i].ticks(0, n)), fingerprints(without.probes[i].ticks(0, n))...)
		for _, got := range fingerprints(c.ticks(before+1, m)) {
			if !slices.Contains(allowed, got) {
				with.complain(t, c, "who was there before the reload gets %q, which neither its old stream nor its new request brings: %q\nThe second configuration:\n%s",
					got, allowed, with.caddyfile(with.after))
				break
			}
		}
	}
}

// fingerprints returns what ticks say of the requests that they answer.
func fingerprints(ticks []string) []string {
	var all []string
	for _, tick := range ticks {
		_, rest, _ := strings.Cut(strings.TrimPrefix(tick, "tick "), " ")
		all = append(all, rest)
	}
	slices.Sort(all)
	return slices.Compact(all)
}
