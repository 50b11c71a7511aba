package relay

// A Joining is how a subscriber begins.
type Joining int

const (
	Fresh   Joining = iota // it brought no id
	Resumed                // it goes on just after the id that it brought
	Gap                    // nobody knows its id any more
	Pending                // nobody knows yet
)

func (how Joining) String() string {
	return [...]string{"fresh", "resumed", "gap", "pending"}[how]
}
