//! A Portolan node: the library that assembles it and the command line.
