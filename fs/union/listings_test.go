package union

import (
	"testing"
	"time"
)

// TestListings: what somebody is reading stays, what nobody reads on in goes, and then nothing is kept or waited for.
func TestListings(t *testing.T) {
	var l listings
	defer l.close()
	l.put(1, []dirent{{name: "a"}})
	l.put(2, []dirent{{name: "b"}})
	if got := l.get(1); len(got) != 1 || got[0].name != "a" {
		t.Errorf("the first listing is %v", got)
	}
	l.mu.Lock()
	l.of[1].used = time.Now().Add(-2 * listingTime)
	l.mu.Unlock()
	l.dropOld()
	if l.get(1) != nil || l.get(2) == nil {
		t.Error("not the old one was dropped, and that alone")
	}
	l.drop(2)
	l.dropOld()
	if l.of != nil || l.sweep != nil {
		t.Error("something is left of no listings")
	}
	l.put(3, nil)
	if l.sweep == nil {
		t.Error("nobody looks for old ones any more")
	}
}
