"""The site: notebooks, documents and reference as HTML that opens from disk, with labs that play without a kernel."""
