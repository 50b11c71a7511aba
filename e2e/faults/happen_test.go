package faults

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"syscall"
	"time"
)

// happen makes a fault happen, and returns when it is over.
func (w *world) happen(f *fault) error {
	r := rand.New(rand.NewPCG(f.seed, 3))
	switch f.kind.part {
	case partOrigin:
		return w.happenToOrigin(f)
	case partCaddy:
		return w.happenToCaddy(f)
	case partLink:
		return w.happenToLink(f, r)
	default:
		w.happenToClients(f, r)
		return nil
	}
}

// last is the time that a fault takes: no wait for anything.
func last(d time.Duration) { time.Sleep(d) }

func (s *stage) happenToOrigin(f *fault) error {
	switch f.kind.name {
	case "the origin hangs":
		s.origin.signal(syscall.SIGSTOP)
		last(f.lasts)
		s.origin.signal(syscall.SIGCONT)
	case "the origin ends its streams":
		return s.origin.end()
	case "the origin ends its streams and starts over":
		return s.origin.startOver()
	case "the origin answers 503":
		err := s.origin.outage(http.StatusServiceUnavailable, "1", f.lasts)
		last(f.lasts)
		return err
	case noFromOrigin:
		err := s.origin.outage(http.StatusNotFound, "", f.lasts)
		last(f.lasts)
		return err
	default:
		s.origin.kill()
		if err := s.origin.note(); err != nil {
			return err
		}
		last(f.lasts)
		s.origin.launch(s.t)
	}
	return nil
}

func (w *world) happenToCaddy(f *fault) error {
	c := w.caddy
	switch f.kind.name {
	case "kill -9 of Caddy":
		c.kill()
		last(f.lasts)
		c.launch(w.t)
	case "SIGTERM to Caddy":
		took, _ := c.terminate(10 * time.Second)
		w.longestExit = max(w.longestExit, took)
		last(f.lasts)
		c.launch(w.t)
		if took > exitTime {
			return fmt.Errorf("%w: %s", errSlowExit, took)
		}
	case "reload, another part changed":
		c.greeting = fmt.Sprint("hello ", f.seed)
		return c.reload()
	case "reload, handlers changed":
		c.heartbeat = 2000 + (c.heartbeat-2000+1)%100
		return c.reload()
	default:
		return c.reload()
	}
	return nil
}

func (w *world) happenToLink(f *fault, r *rand.Rand) error {
	switch f.kind.name {
	case "connections to the origin are reset inside an event":
		w.proxy.Cut(1 + r.IntN(2000))
	case "connections to the origin are half open":
		w.proxy.Swallow(true)
		last(f.lasts)
		w.proxy.Swallow(false)
	case "packets to the origin are dropped":
		if err := w.netns.plug(false); err != nil {
			return err
		}
		last(f.lasts)
		return w.netns.plug(true)
	default:
		w.proxy.Cut(0)
	}
	return nil
}

func (s *stage) happenToClients(f *fault, r *rand.Rand) {
	some := s.crowd.pick(r, 1+r.IntN(max(1, len(s.crowd.members)/4)))
	switch f.kind.name {
	case "clients are cut and stay away":
		for _, m := range some {
			m.cut(r.IntN(2000), upTo(r, 25*time.Second), false)
		}
	case "clients are loaded anew":
		for _, m := range some {
			m.cut(r.IntN(2000), 0, true)
		}
	case "clients stop reading":
		var resume []func()
		for _, m := range some {
			resume = append(resume, m.line.Stall())
		}
		last(f.lasts)
		for _, r := range resume {
			r()
		}
	default:
		for _, m := range some {
			m.cut(r.IntN(4000), 0, false)
		}
	}
}
