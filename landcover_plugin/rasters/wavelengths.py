"""Where in the spectrum the bands of Sentinel-2 lie."""

#: Centre wavelengths in nm of the bands of Sentinel-2A, from ESA's Sentinel-2 Spectral Response Functions (S2-SRF,
#: COPE-GSEG-EOPG-TN-15-0007).
WAVELENGTHS = {
    'B01': 442.7,
    'B02': 492.4,
    'B03': 559.8,
    'B04': 664.6,
    'B05': 704.1,
    'B06': 740.5,
    'B07': 782.8,
    'B08': 832.8,
    'B8A': 864.7,
    'B09': 945.1,
    'B10': 1373.5,
    'B11': 1613.7,
    'B12': 2202.4,
}
