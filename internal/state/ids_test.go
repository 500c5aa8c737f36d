package state

import "testing"

// A range is taken once, until who has it lets go.
func TestTakeRange(t *testing.T) {
	r := testRoot(t)
	a, heldA, err := r.TakeRange(2)
	if err != nil || a != 0 {
		t.Fatal(a, err)
	}
	b, heldB, err := r.TakeRange(2)
	if err != nil || b != 1 {
		t.Fatal(b, err)
	}
	if _, _, err := r.TakeRange(2); err == nil {
		t.Error("a third of two ranges")
	}
	heldA.Close()
	c, heldC, err := r.TakeRange(2)
	if err != nil || c != 0 {
		t.Error(c, err)
	}
	heldB.Close()
	heldC.Close()
}
