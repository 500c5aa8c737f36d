package mount

import (
	"context"

	"github.com/unionfsd/unionfsd/fs/layer"
)

// Successor is a Backend whose unions can take the place of mounted ones of the same layers.
type Successor interface {
	Backend

	// OpenNext is Open for a union that is to take the place of prev; the View is a Next. Prev does not use its work
	// directory any more, or the View leaves that alone until Begin.
	OpenNext(ctx context.Context, spec layer.Spec, prev *layer.Previous) (View, error)
}

// Next is a View that takes the place of a mounted union.
type Next interface {
	View

	// AttachBeneath is Attach, but under the mount that the descriptor old is the root of.
	AttachBeneath(old int) error

	// Begin comes when the view is seen, and the old one is not. Who uses the view has had to wait until then. Before
	// gone is closed the old one may write to the upper layer still; nil: it is gone. After an error the view can be
	// read, but not written to.
	Begin(gone <-chan struct{}) error
}

// Holding is a View whose process has the layers of the union open, and locks on the upper one.
type Holding interface {
	View
	Stack() *layer.Stack
}

// Yielding is a View that is served by this process and can give its place to another union.
type Yielding interface {
	Holding

	// Pause makes all requests wait and brings the upper layer to rest. If closed is not nil it comes first that everything
	// that is open is closed: files, which the view knows of, and then all else, of which closed tells. Else open files are
	// read and written on. After an error requests are answered as before; it matches that of ctx if there was not enough
	// time.
	Pause(ctx context.Context, closed func() (bool, error)) error

	// Resume ends a Pause: requests are answered as before. After an error there is no work directory to stage in,
	// and what needs one fails.
	Resume() error

	// Retire comes after Pause when another union is in the place of this one: who has waited is sent there, who has
	// files open goes on with them, and who has one of the directories open whose inode numbers are in held can list it.
	// The lock on the upper layer is released.
	Retire(held []uint64)
}
