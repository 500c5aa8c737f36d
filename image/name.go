package image

import (
	"fmt"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
)

// hub is how names of Docker's registry begin, and official those of its own images. People leave both out.
const (
	hub      = "docker.io/"
	official = hub + "library/"
)

// parseName returns the reference that a user means by s: "nginx" is docker.io/library/nginx:latest.
func parseName(s string) (name.Reference, error) {
	ref, err := name.ParseReference(s)
	if err != nil {
		return nil, fmt.Errorf("image name %q: it is [REGISTRY/]NAME[:TAG] or NAME@sha256:DIGEST, in lower case", s)
	}
	return ref, nil
}

// fullName is the name of a reference as it is kept in index.json.
func fullName(ref name.Reference) string {
	return hubName(ref.Name())
}

// hubName undoes what the library calls Docker's registry.
func hubName(s string) string {
	if rest, ok := strings.CutPrefix(s, name.DefaultRegistry+"/"); ok {
		return hub + rest
	}
	return s
}

// ShortName is a full name as people write it.
func ShortName(full string) string {
	if rest, ok := strings.CutPrefix(full, official); ok {
		return rest
	}
	return strings.TrimPrefix(full, hub)
}

// parseTag is parseName for a name that is given to an image.
func parseTag(s string) (string, error) {
	ref, err := parseName(s)
	if err != nil {
		return "", err
	}
	if _, ok := ref.(name.Tag); !ok {
		return "", fmt.Errorf("image name %q: a digest cannot be given to an image; name a tag", s)
	}
	return fullName(ref), nil
}
