package direct

import "time"

// An Uptake tells whether a client takes something of what waits for it, by looks at what
// the kernel holds of that. What a client takes is progress, be it less than a write sees.
type Uptake struct{ held int }

// unseen is what the kernel held before the first look.
const unseen = -1

// looks is how often the kernel is asked in the time that a client may take nothing. A
// client that has stopped is cut that much later at most.
const looks = 4

// LookEvery is the time between two looks at a client that may take nothing for a timeout.
func LookEvery(timeout time.Duration) time.Duration { return max(timeout/looks, time.Millisecond) }

// Begin is called when something begins to wait for the client.
func (u *Uptake) Begin() { u.held = unseen }

// Look reports whether the client has taken something since the last look, given how many
// bytes the kernel holds now. The first look only tells what there is to take, and counts as
// progress. If the kernel holds nothing, it is not the client for which it waits.
func (u *Uptake) Look(held int) bool {
	before := u.held
	u.held = held
	return held > 0 && held != before
}
