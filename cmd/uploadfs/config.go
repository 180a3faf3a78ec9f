package main

import (
	"encoding/json"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"uploadfs/mount"
)

func configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "show the configuration of a mount",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(configShowCommand())
	return cmd
}

func configShowCommand() *cobra.Command {
	c := mount.DefaultConfig
	asJSON := false
	cmd := &cobra.Command{
		Use:   "show [flags of mount]",
		Short: "show what each setting of a mount would be, and where it comes from",
		Long: `Shows the settings that uploadfs mount would have with the same flags and the same
environment, and whether each comes from a flag, a variable or the default. A flag
beats its variable, UPLOADFS_NAME for --name. The key itself is not shown.`,
		Example: `  uploadfs config show
  UPLOADFS_PURPOSE=batch uploadfs config show --close background`,
		Args: takes(0, 0, "the flags are those of uploadfs mount"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			list := settings(cmd.Flags(), &c)
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(list)
			}
			w := columns(cmd.OutOrStdout())
			row(w, "SETTING", "VALUE", "FROM")
			for _, s := range list {
				row(w, s.Name, s.Value, s.From)
			}
			return w.Flush()
		},
	}
	mountFlags(cmd.Flags(), &c)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, for programs")
	return cmd
}

// setting is one line of `config show`.
type setting struct {
	Name  string `json:"name"`
	Value string `json:"value"`
	From  string `json:"from"` // "default", "flag", or the name of a variable
}

// settings are those of a mount, in the order of its flags, and what it takes from the
// environment of the official SDKs.
func settings(flags *pflag.FlagSet, c *mount.Config) []setting {
	const standard, flag = "default", "flag"
	var list []setting
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Name == "help" || f.Name == "json" {
			return
		}
		s := setting{Name: f.Name, Value: f.Value.String(), From: standard}
		if many, ok := f.Value.(pflag.SliceValue); ok {
			s.Value = joinQuoted(many.GetSlice())
		}
		switch {
		case len(f.Annotations[setBy]) > 0:
			s.From = f.Annotations[setBy][0]
		case f.Changed:
			s.From = flag
		}
		list = append(list, s)
	})
	keyFile := c.APIKeyFile
	environment(c)
	for i := range list {
		switch s := &list[i]; {
		case s.Name == "base-url":
			if s.From == standard && c.BaseURL != "" {
				s.From = "OPENAI_BASE_URL"
			}
			s.Value = mount.NewEndpoint(c.BaseURL, "", "").String() // without a password
		case s.Name == "api-key-file" && c.APIKeyFile != keyFile:
			s.Value, s.From = c.APIKeyFile, "CREDENTIALS_DIRECTORY"
		}
	}
	if c.APIKey != "" && c.APIKeyFile == "" && !c.Embedded {
		list = append(list, setting{"api-key", c.APIKey.String(), "OPENAI_API_KEY"})
	}
	if c.Organization != "" {
		list = append(list, setting{"organization", c.Organization, "OPENAI_ORG_ID"})
	}
	if c.Project != "" {
		list = append(list, setting{"project", c.Project, "OPENAI_PROJECT_ID"})
	}
	return list
}
