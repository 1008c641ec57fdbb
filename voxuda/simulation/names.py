"""Names of the molecules, for the command line; needs no torch."""

PAPER_SOURCE_SETS = {"table1": ("1bxn", "1f1b", "1yg6"), "table2": ("2byu", "2h12", "2ldb")}
"""The paper's source molecules. It prints 2LDB as "21db"."""

STAND_INS = {"1f1b": "3gl1", "1yg6": "1oel", "2byu": "2cg9", "2h12": "1gyt"}
"""Molecules of similar mass used where a paper molecule's coordinates are not embedded; always named as stand-ins."""

NINE = ("1bxn", "1gyt", "1oel", "1qvr", "1u6g", "2cg9", "2ldb", "3d2f", "3gl1")
"""All embedded molecules that are not a target class, for a source with more kinds than the paper's."""

TARGET_MOLECULES = ("4v4r", "4cr2", "4v94")
"""Ribosome, 26S proteasome and TRiC, the classes of Poly-GA, in other structures, those of PolNet's templates."""

COMMON_NAMES = {"4v4r": "ribosome", "6qzp": "ribosome", "4cr2": "26S proteasome", "4v94": "TRiC"}
"""Names of the target's molecules, for tables and figures."""

IN_CELLS = ("6qzp", "4cr2", "4v94")
"""Human 80S ribosome, 26S proteasome and TRiC, the molecules of the tilt-series target, since the Poly-GA data show neurons."""
