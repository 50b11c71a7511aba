package fleet

// A Role is what a node is for a topic of its fleet.
type Role string

// The roles.
const (
	Holder   Role = "holder"   // it asks the origin for all
	Follower Role = "follower" // another node does
	Apart    Role = "apart"    // it asks the origin for itself, without the fleet
)

// A Part is what a node knows of its part in a topic.
type Part struct {
	Role Role `json:"role"`

	// HolderName is the node that has begun to ask the origin last.
	HolderName string `json:"holder,omitempty"`

	// Lag is how many messages of the fleet this node has not read yet.
	Lag int64 `json:"lag"`

	// Error is why the node is apart.
	Error string `json:"error,omitempty"`
}

// A Member is a source of a Fleet that tells of its part.
type Member interface {
	Part() Part
}
