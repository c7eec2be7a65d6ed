"""Partial charges of proteins in the force field AMBER99SB, which are those
of AMBER94 (`doi:10.1021/ja00124a002 <https://doi.org/10.1021/ja00124a002>`_),
for the twenty amino acids inside a chain, HIS with its hydrogen at NE2, and
for what AMBER calls HID, HIP, CYX, CYM, ASH, GLH and LYN.
"""
from __future__ import annotations

from typing import NamedTuple

# Heavy atoms, each followed by the hydrogens that it bears.
_CHARGES = {
    'ALA':
        'N -.4157 H .2719, CA .0337 HA .0823, CB -.1825 HB1 .0603 HB2 .0603 '
        'HB3 .0603, C .5973, O -.5679',
    'ARG':
        'N -.3479 H .2747, CA -.2637 HA .1560, CB -.0007 HB2 .0327 HB3 '
        '.0327, CG .0390 HG2 .0285 HG3 .0285, CD .0486 HD2 .0687 HD3 .0687, '
        'NE -.5295 HE .3456, CZ .8076, NH1 -.8627 HH11 .4478 HH12 .4478, NH2 '
        '-.8627 HH21 .4478 HH22 .4478, C .7341, O -.5894',
    'ASN':
        'N -.4157 H .2719, CA .0143 HA .1048, CB -.2041 HB2 .0797 HB3 .0797, '
        'CG .7130, OD1 -.5931, ND2 -.9191 HD21 .4196 HD22 .4196, C .5973, O '
        '-.5679',
    'ASP':
        'N -.5163 H .2936, CA .0381 HA .0880, CB -.0303 HB2 -.0122 HB3 '
        '-.0122, CG .7994, OD1 -.8014, OD2 -.8014, C .5366, O -.5819',
    'CYS':
        'N -.4157 H .2719, CA .0213 HA .1124, CB -.1231 HB2 .1112 HB3 .1112, '
        'SG -.3119 HG .1933, C .5973, O -.5679',
    'GLN':
        'N -.4157 H .2719, CA -.0031 HA .0850, CB -.0036 HB2 .0171 HB3 '
        '.0171, CG -.0645 HG2 .0352 HG3 .0352, CD .6951, OE1 -.6086, NE2 '
        '-.9407 HE21 .4251 HE22 .4251, C .5973, O -.5679',
    'GLU':
        'N -.5163 H .2936, CA .0397 HA .1105, CB .0560 HB2 -.0173 HB3 '
        '-.0173, CG .0136 HG2 -.0425 HG3 -.0425, CD .8054, OE1 -.8188, OE2 '
        '-.8188, C .5366, O -.5819',
    'GLY':
        'N -.4157 H .2719, CA -.0252 HA2 .0698 HA3 .0698, C .5973, O -.5679',
    'HIS':
        'N -.4157 H .2719, CA -.0581 HA .1360, CB -.0074 HB2 .0367 HB3 '
        '.0367, CG .1868, ND1 -.5432, CE1 .1635 HE1 .1435, NE2 -.2795 HE2 '
        '.3339, CD2 -.2207 HD2 .1862, C .5973, O -.5679',
    'ILE':
        'N -.4157 H .2719, CA -.0597 HA .0869, CB .1303 HB .0187, CG2 -.3204 '
        'HG21 .0882 HG22 .0882 HG23 .0882, CG1 -.0430 HG12 .0236 HG13 .0236, '
        'CD1 -.0660 HD11 .0186 HD12 .0186 HD13 .0186, C .5973, O -.5679',
    'LEU':
        'N -.4157 H .2719, CA -.0518 HA .0922, CB -.1102 HB2 .0457 HB3 '
        '.0457, CG .3531 HG -.0361, CD1 -.4121 HD11 .1000 HD12 .1000 HD13 '
        '.1000, CD2 -.4121 HD21 .1000 HD22 .1000 HD23 .1000, C .5973, O '
        '-.5679',
    'LYS':
        'N -.3479 H .2747, CA -.2400 HA .1426, CB -.0094 HB2 .0362 HB3 '
        '.0362, CG .0187 HG2 .0103 HG3 .0103, CD -.0479 HD2 .0621 HD3 .0621, '
        'CE -.0143 HE2 .1135 HE3 .1135, NZ -.3854 HZ1 .3400 HZ2 .3400 HZ3 '
        '.3400, C .7341, O -.5894',
    'MET':
        'N -.4157 H .2719, CA -.0237 HA .0880, CB .0342 HB2 .0241 HB3 .0241, '
        'CG .0018 HG2 .0440 HG3 .0440, SD -.2737, CE -.0536 HE1 .0684 HE2 '
        '.0684 HE3 .0684, C .5973, O -.5679',
    'PHE':
        'N -.4157 H .2719, CA -.0024 HA .0978, CB -.0343 HB2 .0295 HB3 '
        '.0295, CG .0118, CD1 -.1256 HD1 .1330, CE1 -.1704 HE1 .1430, CZ '
        '-.1072 HZ .1297, CE2 -.1704 HE2 .1430, CD2 -.1256 HD2 .1330, C '
        '.5973, O -.5679',
    'PRO':
        'N -.2548, CD .0192 HD2 .0391 HD3 .0391, CG .0189 HG2 .0213 HG3 '
        '.0213, CB -.0070 HB2 .0253 HB3 .0253, CA -.0266 HA .0641, C .5896, '
        'O -.5748',
    'SER':
        'N -.4157 H .2719, CA -.0249 HA .0843, CB .2117 HB2 .0352 HB3 .0352, '
        'OG -.6546 HG .4275, C .5973, O -.5679',
    'THR':
        'N -.4157 H .2719, CA -.0389 HA .1007, CB .3654 HB .0043, CG2 -.2438 '
        'HG21 .0642 HG22 .0642 HG23 .0642, OG1 -.6761 HG1 .4102, C .5973, O '
        '-.5679',
    'TRP':
        'N -.4157 H .2719, CA -.0275 HA .1123, CB -.0050 HB2 .0339 HB3 '
        '.0339, CG -.1415, CD1 -.1638 HD1 .2062, NE1 -.3418 HE1 .3412, CE2 '
        '.1380, CZ2 -.2601 HZ2 .1572, CH2 -.1134 HH2 .1417, CZ3 -.1972 HZ3 '
        '.1447, CE3 -.2387 HE3 .1700, CD2 .1243, C .5973, O -.5679',
    'TYR':
        'N -.4157 H .2719, CA -.0014 HA .0876, CB -.0152 HB2 .0295 HB3 '
        '.0295, CG -.0011, CD1 -.1906 HD1 .1699, CE1 -.2341 HE1 .1656, CZ '
        '.3226, OH -.5579 HH .3992, CE2 -.2341 HE2 .1656, CD2 -.1906 HD2 '
        '.1699, C .5973, O -.5679',
    'VAL':
        'N -.4157 H .2719, CA -.0875 HA .0969, CB .2985 HB -.0297, CG1 '
        '-.3192 HG11 .0791 HG12 .0791 HG13 .0791, CG2 -.3192 HG21 .0791 HG22 '
        '.0791 HG23 .0791, C .5973, O -.5679',
}
AMINO_ACIDS = tuple(_CHARGES)

# The same residues with more or fewer protons.
_PROTONATION = {
    'HID':
        'N -.4157 H .2719, CA .0188 HA .0881, CB -.0462 HB2 .0402 HB3 .0402, '
        'CG -.0266, ND1 -.3811 HD1 .3649, CE1 .2057 HE1 .1392, NE2 -.5727, '
        'CD2 .1292 HD2 .1147, C .5973, O -.5679',
    'HIP':
        'N -.3479 H .2747, CA -.1354 HA .1212, CB -.0414 HB2 .0810 HB3 '
        '.0810, CG -.0012, ND1 -.1513 HD1 .3866, CE1 -.0170 HE1 .2681, NE2 '
        '-.1718 HE2 .3911, CD2 -.1141 HD2 .2317, C .7341, O -.5894',
    'CYX':
        'N -.4157 H .2719, CA .0429 HA .0766, CB -.0790 HB2 .0910 HB3 .0910, '
        'SG -.1081, C .5973, O -.5679',
    'CYM':
        'N -.4157 H .2719, CA -.0351 HA .0508, CB -.2413 HB2 .1122 HB3 '
        '.1122, SG -.8844, C .5973, O -.5679',
    'ASH':
        'N -.4157 H .2719, CA .0341 HA .0864, CB -.0316 HB2 .0488 HB3 .0488, '
        'CG .6462, OD1 -.5554, OD2 -.6376 HD2 .4747, C .5973, O -.5679',
    'GLH':
        'N -.4157 H .2719, CA .0145 HA .0779, CB -.0071 HB2 .0256 HB3 .0256, '
        'CG -.0174 HG2 .0430 HG3 .0430, CD .6801, OE1 -.5838, OE2 -.6511 HE2 '
        '.4641, C .5973, O -.5679',
    'LYN':
        'N -.4157 H .2719, CA -.07206 HA .0994, CB -.04845 HB2 .0340 HB3 '
        '.0340, CG .06612 HG2 .01041 HG3 .01041, CD -.03768 HD2 .01155 HD3 '
        '.01155, CE .32604 HE2 -.03358 HE3 -.03358, NZ -1.03581 HZ2 .38604 '
        'HZ3 .38604, C .5973, O -.5679',
}


class HeavyAtom(NamedTuple):
    """The charge of an atom and those of the hydrogens that it bears."""
    charge: float
    hydrogens: dict[str, float]


def _read(text: str) -> dict[str, HeavyAtom]:
    atoms = {}
    for part in text.split(', '):
        words = part.split()
        charge = dict(zip(words[::2], map(float, words[1::2])))
        heavy = words[0]
        atoms[heavy] = HeavyAtom(charge.pop(heavy), charge)
    return atoms


#: The heavy atoms of each amino acid, by name.
TEMPLATES = {name: _read(text) for name, text in _CHARGES.items()}

#: The same with other protonation, by the names that AMBER has for them.
PROTONATION = {name: _read(text) for name, text in _PROTONATION.items()}

#: The amino acid that each of these is.
PARENT = {'HID': 'HIS', 'HIP': 'HIS', 'CYX': 'CYS', 'CYM': 'CYS',
          'ASH': 'ASP', 'GLH': 'GLU', 'LYN': 'LYS'}
