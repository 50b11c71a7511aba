package multiplex

import (
	"reflect"
	"time"
)

// A selector waits on many channels. Its cases are kept, as they change little.
type selector struct {
	cases []reflect.SelectCase
	timer *time.Timer
}

// The fixed cases.
const (
	caseGone = iota
	caseNews
	caseTimer
	fixedCases
)

func receive[T any](c <-chan T) reflect.SelectCase {
	return reflect.SelectCase{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(c)}
}

// wait returns when one of the streams may have something to send, or when something is
// due. It reports whether the client is gone.
func (c *Conn) wait() (left bool) {
	s := &c.selector
	if s.cases == nil {
		s.timer = time.NewTimer(time.Hour)
		s.cases = append(s.cases, receive(c.gone), receive(c.wake), receive(s.timer.C))
	}
	s.timer.Reset(time.Until(c.next()))
	s.cases = s.cases[:fixedCases]
	for _, m := range c.members {
		if m.state == reading {
			s.cases = append(s.cases, receive(m.step.Wake), receive(m.step.Timer))
		}
	}
	chosen, _, _ := reflect.Select(s.cases)
	clear(s.cases[fixedCases:])
	at := fixedCases
	for _, m := range c.members {
		if m.state != reading {
			continue
		}
		// Whatever else is ready shares a write with what has woken the connection.
		m.ready = chosen == at || chosen == at+1
		if !m.ready {
			select {
			case <-m.step.Wake:
				m.ready = true
			case <-m.step.Timer:
				m.ready = true
			default:
			}
		}
		at += 2
	}
	return chosen == caseGone
}

// stop gives back what the selector holds.
func (s *selector) stop() {
	if s.timer != nil {
		s.timer.Stop()
	}
	*s = selector{}
}

// next returns when something is due, if nothing happens before.
func (c *Conn) next() time.Time {
	at := time.Now().Add(time.Hour)
	earlier := func(other time.Time) {
		if other.Before(at) {
			at = other
		}
	}
	if h := c.options.Heartbeat; h > 0 {
		earlier(c.spoken.Add(h))
	}
	if !c.endAt.IsZero() {
		earlier(c.endAt)
	}
	waits := false
	for _, m := range c.members {
		if m.state == resting {
			waits = true
		}
	}
	if !waits {
		return at
	}
	full := c.asked(time.Now()) >= maxAsked
	for _, m := range c.members {
		if m.state == resting && !full || m.state == asking && full && m.holds {
			earlier(m.at)
		}
	}
	return at
}
