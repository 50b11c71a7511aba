package relay

import (
	"sync"
	"sync/atomic"
)

// Misfits of a relay occur with locks held. So another goroutine tells the observer of them,
// which runs while there are any, and for which Observer.Retired waits.
type misfits struct {
	observer Observer
	told     func()                 // is called when the observer was told of all
	first    atomic.Pointer[string] // for Holdings

	mu sync.Mutex // no other lock is taken while it is held

	// Guarded by mu.
	untold  map[Misfit]sighting // the tables bound how many kinds there are
	telling bool
}

// A sighting is of misfits of one kind.
type sighting struct {
	topic *Topic // of the newest
	times uint64
}

// onMisfit is set by tests.
var onMisfit func(Misfit)

func (m *misfits) add(t *Topic, what Misfit) {
	text := what.String()
	m.first.CompareAndSwap(nil, &text)
	if onMisfit != nil {
		onMisfit(what)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.untold == nil {
		m.untold = make(map[Misfit]sighting)
	}
	m.untold[what] = sighting{t, m.untold[what].times + 1}
	if !m.telling {
		m.telling = true
		go m.tell()
	}
}

// tell tells the observer of all misfits.
func (m *misfits) tell() {
	defer m.told()
	for untold := m.take(); untold != nil; untold = m.take() {
		for what, seen := range untold {
			m.observer.Misfit(seen.topic, what, seen.times)
		}
	}
}

// take returns what the observer was not told of yet. If that is nothing, tell is over.
func (m *misfits) take() (untold map[Misfit]sighting) {
	m.mu.Lock()
	defer m.mu.Unlock()
	untold, m.untold = m.untold, nil
	m.telling = untold != nil
	return untold
}

// isTelling reports whether the observer is yet to be told of some, or is being told.
func (m *misfits) isTelling() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.telling
}

// all returns the first, if there was one.
func (m *misfits) all() []string {
	if text := m.first.Load(); text != nil {
		return []string{*text}
	}
	return nil
}
