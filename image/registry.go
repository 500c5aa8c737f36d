package image

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"golang.org/x/sys/unix"
)

// Pull adds the image of a registry that arg names. It returns the image and the digest that the registry has it under.
// Credentials are those of the usual files (docker login, podman login). What an interrupted pull has downloaded is not
// downloaded again.
func (s *Store) Pull(ctx context.Context, arg string, o Options) (*Image, string, error) {
	ref, err := parseName(arg)
	if err != nil {
		return nil, "", err
	}
	d, err := s.receive(o)
	if err != nil {
		return nil, "", err
	}
	defer d.close()
	top, err := remote.Get(ref, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain))
	if err != nil {
		return nil, "", fmt.Errorf("pull %s: %w", arg, err)
	}
	client, err := d.client(ctx, ref.Context())
	if err != nil {
		return nil, "", fmt.Errorf("pull %s: %w", arg, err)
	}
	notes := map[string]string{noteRepoDigest: hubName(ref.Context().Name()) + "@" + top.Digest.String()}
	if _, ok := ref.(name.Tag); ok {
		notes[noteName] = fullName(ref)
	}
	if err := d.image(ctx, top.Descriptor, client.get, notes); err != nil {
		return nil, "", fmt.Errorf("pull %s: %w", arg, err)
	}
	if err := d.publish(); err != nil {
		return nil, "", err
	}
	img, err := s.read(d.added[0].manifest)
	return img, top.Digest.String(), err
}

// repository gets blobs of one repository.
type repository struct {
	d    *delivery
	repo name.Repository
	http http.Client
}

func (d *delivery) client(ctx context.Context, repo name.Repository) (*repository, error) {
	auth, err := authn.DefaultKeychain.Resolve(repo)
	if err != nil {
		return nil, err
	}
	rt, err := transport.NewWithContext(ctx, repo.Registry, auth, remote.DefaultTransport, []string{repo.Scope(transport.PullScope)})
	if err != nil {
		return nil, err
	}
	return &repository{d: d, repo: repo, http: http.Client{Transport: rt}}, nil
}

// get downloads a blob or a manifest.
func (r *repository) get(ctx context.Context, want v1.Descriptor) error {
	if r.d.has(want.Digest) {
		return nil
	}
	if want.MediaType.IsImage() || want.MediaType.IsIndex() {
		body, err := r.request(ctx, "manifests", want, 0)
		if err != nil {
			return err
		}
		defer body.Close()
		return r.d.checked(body, want)
	}
	if err := r.download(ctx, want); err != nil {
		return fmt.Errorf("blob %s: %w", want.Digest, err)
	}
	return nil
}

// download gets a blob into the delivery. It is put together in incoming/DIGEST.part, one process at a time, and stays there
// until the delivery is published: then who is interrupted goes on where it ended, and of two who pull at once one waits
// for the other.
func (r *repository) download(ctx context.Context, want v1.Descriptor) error {
	part, err := openPart(ctx, r.d.s.part(want.Digest))
	if err != nil {
		return err
	}
	defer part.Close()
	if r.d.has(want.Digest) { // somebody else has pulled it meanwhile
		return os.Remove(part.Name())
	}
	st, err := part.Stat()
	if err != nil {
		return err
	}
	resumed := st.Size() > 0
	if err := r.fill(ctx, part, want); err != nil {
		return err
	}
	err = r.d.adopt(part, want)
	if err != nil && resumed { // what was there may be what a crash has left
		if err = part.Truncate(0); err == nil {
			err = r.fill(ctx, part, want)
		}
		if err == nil {
			err = r.d.adopt(part, want)
		}
	}
	if err != nil {
		os.Remove(part.Name())
	}
	return err
}

// part is where a blob is put together.
func (s *Store) part(h v1.Hash) string { return filepath.Join(s.incoming(), h.Hex+".part") }

// openPart opens a file that one process at a time downloads into, and waits for its lock.
func openPart(ctx context.Context, name string) (*os.File, error) {
	for {
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return nil, err
		}
		if err := lockFile(ctx, f); err != nil {
			f.Close()
			return nil, err
		}
		held, err := f.Stat()
		if err != nil {
			f.Close()
			return nil, err
		}
		if now, err := os.Stat(name); err == nil && os.SameFile(held, now) {
			return f, nil
		}
		f.Close() // who had the lock has published and removed it
	}
}

// lockFile takes the lock on a file, which others may hold for as long as a download takes.
func lockFile(ctx context.Context, f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err != unix.EWOULDBLOCK && err != unix.EINTR {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// attempts is how often a download that breaks off is taken up again.
const attempts = 3

// fill makes part hold the blob, going on where it ends.
func (r *repository) fill(ctx context.Context, part *os.File, want v1.Descriptor) error {
	for try := 0; ; try++ {
		st, err := part.Stat()
		if err != nil {
			return err
		}
		if st.Size() >= want.Size {
			return nil
		}
		if try == 0 {
			r.d.progress(0, want.Size-st.Size())
		}
		r.d.tell(want, "Downloading")
		var body io.ReadCloser
		if body, err = r.request(ctx, "blobs", want, st.Size()); err == nil {
			_, err = io.Copy(part, counted{io.LimitReader(body, want.Size-st.Size()+1), r.d})
			body.Close()
		}
		if now, serr := part.Stat(); serr == nil && now.Size() >= want.Size {
			return nil
		}
		if err == nil {
			err = io.ErrUnexpectedEOF
		}
		if try == attempts || ctx.Err() != nil {
			return err
		}
	}
}

// request asks for what, from the given offset.
func (r *repository) request(ctx context.Context, what string, want v1.Descriptor, offset int64) (io.ReadCloser, error) {
	url := fmt.Sprintf("%s://%s/v2/%s/%s/%s", r.repo.Scheme(), r.repo.RegistryStr(), r.repo.RepositoryStr(), what, want.Digest)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", string(want.MediaType))
	if offset > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", offset, want.Size-1))
	}
	resp, err := r.http.Do(req)
	if err != nil {
		return nil, err
	}
	if offset > 0 && resp.StatusCode == http.StatusOK { // it knows no ranges: skip what is there
		if _, err := io.CopyN(io.Discard, resp.Body, offset); err != nil {
			resp.Body.Close()
			return nil, err
		}
		return resp.Body, nil
	}
	if err := transport.CheckError(resp, http.StatusOK, http.StatusPartialContent); err != nil {
		resp.Body.Close()
		return nil, err
	}
	return resp.Body, nil
}

// Push copies an image to a registry under the name arg, and returns its digest.
func (s *Store) Push(ctx context.Context, img *Image, arg string) (string, error) {
	ref, err := parseName(arg)
	if err != nil {
		return "", err
	}
	held, err := s.Hold()
	if err != nil {
		return "", err
	}
	defer held.Close()
	path, err := layout.FromPath(s.images())
	if err != nil {
		return "", err
	}
	image, err := path.Image(img.descriptor.Digest)
	if err != nil {
		return "", err
	}
	if err := remote.Write(ref, image, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)); err != nil {
		return "", fmt.Errorf("push %s: %w", arg, err)
	}
	return img.Digest, nil
}
