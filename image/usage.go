package image

// Usage is what the images of a store take on disk.
type Usage struct {
	Images  int   `json:"images"`
	Layers  int   `json:"layers"`
	Logical int64 `json:"logical"` // the sizes of all images together
	Unique  int64 `json:"unique"`  // layers, each once
	Shared  int64 `json:"shared"`  // layers that several images have, each once
	Blobs   int64 `json:"blobs"`   // archives, each once
}

// Usage adds up the sizes of files.
func (s *Store) Usage() (Usage, error) {
	images, err := s.Images()
	if err != nil {
		return Usage{}, err
	}
	u := Usage{Images: len(images)}
	users, sizes, blobs := map[string]int{}, map[string]int64{}, map[string]int64{}
	for _, img := range images {
		layers, err := img.Layers()
		if err != nil {
			return u, err
		}
		seen := map[string]bool{}
		for _, l := range layers {
			u.Logical += l.Size
			sizes[l.DiffID], blobs[l.Digest] = l.Size, l.BlobSize
			if !seen[l.DiffID] {
				users[l.DiffID]++
			}
			seen[l.DiffID] = true
		}
	}
	u.Layers = len(sizes)
	for id, size := range sizes {
		u.Unique += size
		if users[id] > 1 {
			u.Shared += size
		}
	}
	for _, size := range blobs {
		u.Blobs += size
	}
	return u, nil
}
