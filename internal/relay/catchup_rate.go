package relay

import (
	"sync"
	"time"
)

// Fetches of a topic have a rate. Clients that come back with an id each cost the
// origin no more than if they had asked it themselves, and that many a second it is
// asked: a full queue is emptied within the default timeout. Ids differ by few where
// clients lag by about the same, and fetches of equal ids are shared.
var fetches = allowance{burst: 50, rate: MaxQueued / 10}

// A fetch that comes to nothing was made for an id that the origin does not know: one
// that it has forgotten, or that was made up. It costs the address for which it was made
// one, and one more for each second in which it held a connection, up to a bound. One
// that the origin has refused has held none, and costs less. An address may have some
// of these at once, since there may be an office or a proxy behind it, whose clients all
// come back from an outage with ids that are forgotten, and then has to wait. It may have
// more in all topics of a handler together than in one, but not without bound: a made-up
// URL costs no more than a made-up id. There, a fetch counts from its start.
const (
	maxHeld     = 10  // seconds
	refusedCost = 0.2 // with 1, the 60 clients of a topic in the fault test were told of gaps that were none
)

var (
	futileInTopic = allowance{burst: 20, rate: 1}
	futileInRelay = allowance{burst: 100, rate: 5}
)

// An allowance is how much may be spent at once, and how much is regained in a second.
type allowance struct{ burst, rate float64 }

// fetchRates bounds how often a topic's origin is asked, and how often in vain for one
// client address. It is guarded by catchups.mu.
type fetchRates struct {
	spent  debt        // fetches
	futile debts       // what has come to nothing here
	all    *relayDebts // and in all topics of the relay
}

// A debt is what was spent, and is forgiven at a rate.
type debt struct {
	amount float64
	at     time.Time
}

func (d debt) now(rate float64, now time.Time) float64 {
	return max(0, d.amount-now.Sub(d.at).Seconds()*rate)
}

// wait returns how long it takes until there is room for one more.
func (d debt) wait(a allowance, now time.Time) time.Duration {
	over := d.now(a.rate, now) + 1 - a.burst
	if over <= 0 {
		return 0
	}
	return time.Duration(over/a.rate*float64(time.Second)) + time.Millisecond
}

// debts are those of client addresses.
type debts struct {
	allowance
	byIP  map[string]debt
	sweep int // how many addresses there may be before the idle ones are dropped
}

// add makes an address owe more, or less if cost is negative.
func (d *debts) add(ip string, cost float64, now time.Time) {
	if d.byIP == nil {
		d.byIP = make(map[string]debt)
	}
	d.byIP[ip] = debt{max(0, d.byIP[ip].now(d.rate, now)+cost), now}
	if len(d.byIP) < max(d.sweep, 100) {
		return
	}
	for other, owed := range d.byIP {
		if owed.now(d.rate, now) == 0 {
			delete(d.byIP, other)
		}
	}
	d.sweep = 2 * len(d.byIP) // those left have failed within the last seconds: the rate bounds them
}

func (d *debts) wait(ip string, now time.Time) time.Duration {
	return d.byIP[ip].wait(d.allowance, now)
}

// relayDebts are those of client addresses in all topics of a relay. Its lock is taken
// inside of catchups.mu.
type relayDebts struct {
	mu sync.Mutex
	debts
}

func (d *relayDebts) add(ip string, cost float64, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.debts.add(ip, cost, now)
}

func (d *relayDebts) wait(ip string, now time.Time) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.debts.wait(ip, now)
}

// fetched accounts for a fetch.
func (r *fetchRates) fetched(now time.Time) {
	r.spent = debt{r.spent.now(fetches.rate, now) + 1, now}
}

// wait returns how long it takes until the origin may be asked again.
func (r *fetchRates) wait(now time.Time) time.Duration {
	return r.spent.wait(fetches, now)
}

// waitFor returns how long it takes until it may be asked for an address.
func (r *fetchRates) waitFor(ip string, now time.Time) time.Duration {
	return max(r.futile.wait(ip, now), r.all.wait(ip, now))
}

// hasFailed reports whether a fetch for an address has lately come to nothing here.
func (r *fetchRates) hasFailed(ip string, now time.Time) bool {
	return r.futile.byIP[ip].now(r.futile.rate, now) > 0
}

// failed accounts for the cost of a fetch for an address that has come to nothing. It is
// negative for one that was accounted for and has come to something after all.
func (r *fetchRates) failed(ip string, cost float64, now time.Time) {
	r.futile.add(ip, cost, now)
	r.all.add(ip, cost, now)
}

// MaxQueued is how many catch-ups of a topic may wait to be started.
const MaxQueued = 1000
