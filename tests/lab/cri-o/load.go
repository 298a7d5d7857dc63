// Loads a Docker archive into the store that CRI-O has on this machine, whether CRI-O runs or not, with CRI-O's own libraries:
// CRI has no call for it, and CRI-O no command.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/containers/image/v5/copy"
	"github.com/containers/image/v5/docker/archive"
	"github.com/containers/image/v5/docker/reference"
	"github.com/containers/image/v5/signature"
	istorage "github.com/containers/image/v5/storage"
	"github.com/containers/image/v5/types"
	"github.com/containers/storage"
	"github.com/containers/storage/pkg/reexec"
)

func main() {
	// Layers are unpacked in a process of their own.
	if reexec.Init() {
		return
	}
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: load FILE.tar")
		os.Exit(2)
	}
	if err := load(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func load(file string) error {
	context := context.Background()
	system := &types.SystemContext{}
	options, err := storage.DefaultStoreOptions()
	if err != nil {
		return err
	}
	// As CRI-O does without a storage.conf.
	options.GraphDriverName = "overlay"
	store, err := storage.GetStore(options)
	if err != nil {
		return err
	}
	policy, err := signature.NewPolicyContext(&signature.Policy{Default: []signature.PolicyRequirement{signature.NewPRInsecureAcceptAnything()}})
	if err != nil {
		return err
	}
	reader, err := archive.NewReader(system, file)
	if err != nil {
		return err
	}
	defer reader.Close()
	images, err := reader.List()
	if err != nil {
		return err
	}
	for _, names := range images {
		for _, source := range names {
			name := source.DockerReference()
			if name == nil {
				return fmt.Errorf("an image of %s has no name", file)
			}
			if err := put(context, system, store, policy, source, name); err != nil {
				return err
			}
			fmt.Println("loaded", name)
		}
	}
	return nil
}

func put(context context.Context, system *types.SystemContext, store storage.Store, policy *signature.PolicyContext,
	source types.ImageReference, name reference.Named) error {
	destination, err := istorage.Transport.ParseStoreReference(store, name.String())
	if err != nil {
		return err
	}
	_, err = copy.Image(context, policy, destination, source, &copy.Options{SourceCtx: system, DestinationCtx: system})
	return err
}
